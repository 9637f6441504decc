//! Typed access to the fields of a kubeconfig's objects. Errors name the field by its path,
//! and never quote a value, which could be a secret. Pure.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Data in the kubeconfig, or the file that contains it.
#[derive(PartialEq, Eq)]
pub enum DataOrFile {
    Data(Vec<u8>),
    /// Relative to the kubeconfig's directory.
    File(PathBuf),
}

/// Why a field cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidField {
    #[error("{field} is not {expected}")]
    Type {
        /// As in `user.token`.
        field: String,
        /// As in `a string`.
        expected: &'static str,
    },
    #[error("{field} is missing")]
    Missing {
        /// As in `cluster.server`.
        field: String,
    },
    #[error(
        "{field} is not supported (supported: token, tokenFile or a client certificate, without a proxy)"
    )]
    Unsupported {
        /// As in `user.exec`.
        field: String,
    },
    #[error("{field} is not base64")]
    Base64 {
        /// As in `user.client-key-data`.
        field: String,
    },
}

/// The fields of one object in a kubeconfig.
pub struct Fields<'a> {
    values: &'a Value,
    /// The name of the object in errors.
    name: &'static str,
}

/// Hides the data, which may be a secret.
impl fmt::Debug for DataOrFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Data(_) => f.write_str("Data(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl<'a> Fields<'a> {
    /// `null` is equivalent to an object without fields.
    pub fn new(values: &'a Value, name: &'static str) -> Result<Self, InvalidField> {
        match values {
            Value::Null | Value::Object(_) => Ok(Self { values, name }),
            _ => Err(InvalidField::Type {
                field: name.to_owned(),
                expected: "an object",
            }),
        }
    }

    /// An empty string is equivalent to a missing one, as in client-go.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>, InvalidField> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.wrong_type(key, "a string")),
        }
    }

    pub fn required_string(&self, key: &str) -> Result<&'a str, InvalidField> {
        self.string(key)?.ok_or_else(|| self.missing(key))
    }

    /// False by default.
    pub fn bool(&self, key: &str) -> Result<bool, InvalidField> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.wrong_type(key, "true or false")),
        }
    }

    /// Empty by default.
    pub fn array(&self, key: &str) -> Result<&'a [Value], InvalidField> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.wrong_type(key, "an array")),
        }
    }

    /// The decoded data in `KEY-data`, otherwise the file in `KEY`.
    pub fn data_or_file(&self, key: &str) -> Result<Option<DataOrFile>, InvalidField> {
        let data_key = format!("{key}-data");
        let Some(data) = self.string(&data_key)? else {
            return Ok(self.string(key)?.map(|path| DataOrFile::File(path.into())));
        };
        // Some tools break base64 into lines. Go's decoder accepts that.
        let mut compact = data.as_bytes().to_vec();
        compact.retain(|byte| !byte.is_ascii_whitespace());
        STANDARD
            .decode(compact)
            .map(|bytes| Some(DataOrFile::Data(bytes)))
            .map_err(|_| InvalidField::Base64 {
                field: self.path(&data_key),
            })
    }

    /// Returns an error if one of these fields is set.
    pub fn refuse(&self, keys: &[&str]) -> Result<(), InvalidField> {
        let is_set = |key: &&&str| match self.get(key) {
            None => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        match keys.iter().find(is_set) {
            None => Ok(()),
            Some(key) => Err(InvalidField::Unsupported {
                field: self.path(key),
            }),
        }
    }

    pub fn missing(&self, key: &str) -> InvalidField {
        InvalidField::Missing {
            field: self.path(key),
        }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn wrong_type(&self, key: &str, expected: &'static str) -> InvalidField {
        InvalidField::Type {
            field: self.path(key),
            expected,
        }
    }

    fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }
}
