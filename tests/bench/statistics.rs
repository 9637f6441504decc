//! Median, percentile and slope of measurements. Pure.

use std::time::Duration;

/// Measurements, in the order in which they were taken.
#[derive(Debug, Default, Clone)]
pub struct Sample(Vec<Duration>);

impl Sample {
    pub fn push(&mut self, value: Duration) {
        self.0.push(value);
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn median(&self) -> Duration {
        let sorted = self.sorted();
        let Some(last) = sorted.len().checked_sub(1) else {
            return Duration::ZERO;
        };
        // For an even number, the mean of the middle two.
        (sorted[last / 2] + sorted[last.div_ceil(2)]) / 2
    }

    pub fn min(&self) -> Duration {
        self.0.iter().min().copied().unwrap_or_default()
    }

    /// The 90th percentile.
    pub fn p90(&self) -> Duration {
        let sorted = self.sorted();
        let last = sorted.len().saturating_sub(1);
        sorted
            .get((last * 9).div_ceil(10))
            .copied()
            .unwrap_or_default()
    }

    fn sorted(&self) -> Vec<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted
    }
}

/// `a` divided by `b`.
pub fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// The slope of the regression line, by least squares.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let mean = |values: &dyn Fn(&(f64, f64)) -> f64| -> f64 {
        let (sum, count) = points.iter().fold((0.0, 0.0), |(sum, count), it| {
            (sum + values(it), count + 1.0)
        });
        sum / count
    };
    let (x, y) = (mean(&|it| it.0), mean(&|it| it.1));
    let covariance: f64 = points.iter().map(|it| (it.0 - x) * (it.1 - y)).sum();
    let variance: f64 = points.iter().map(|it| (it.0 - x).powi(2)).sum();
    covariance / variance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[u64]) -> Sample {
        Sample(values.iter().map(|&it| Duration::from_micros(it)).collect())
    }

    #[test]
    fn statistics_ignore_the_order() {
        let sample = sample(&[50, 10, 40, 20, 30, 0, 60, 100, 80, 90, 70]);
        assert_eq!(sample.median(), Duration::from_micros(50));
        assert_eq!(sample.p90(), Duration::from_micros(90));
        assert_eq!(sample.min(), Duration::ZERO);
    }

    #[test]
    fn median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(sample(&[4, 1, 2, 3]).median(), Duration::from_nanos(2500));
        assert_eq!(sample(&[7]).p90(), Duration::from_micros(7));
        assert_eq!(Sample::default().median(), Duration::ZERO);
    }

    #[test]
    fn slope_is_that_of_the_regression_line() {
        let line = [(0.0, 5.0), (10.0, 25.0), (100.0, 205.0)];
        assert!((slope(&line) - 2.0).abs() < 1e-9);
        let around = [(0.0, 1.0), (0.0, -1.0), (1.0, 4.0), (1.0, 2.0)];
        assert!((slope(&around) - 3.0).abs() < 1e-9);
    }
}
