#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| msm_cni::testing::fuzzing::kubeconfig(bytes));
