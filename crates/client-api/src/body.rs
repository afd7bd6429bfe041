//! Requests that are read without ruma, because clients are less strict than its types.

use exeunt_http::{MatrixError, RawCall};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The JSON body as a type of ours. A field that is missing is told from one that is wrong.
pub(crate) fn read<T: DeserializeOwned>(call: &RawCall) -> Result<T, MatrixError> {
    serde_json::from_value(Value::Object(call.object()?)).map_err(|error| call.misfit(&error))
}

/// An argument of the path; the router gives as many as the path has.
pub(crate) fn arg(call: &RawCall, index: usize) -> &str {
    call.args.get(index).map_or("", String::as_str)
}

/// An argument of the path that is an identifier.
pub(crate) fn id<'a, T: TryFrom<&'a str>>(
    call: &'a RawCall,
    index: usize,
) -> Result<T, MatrixError> {
    let text = arg(call, index);
    T::try_from(text).map_err(|_| {
        let unnamed = || MatrixError::invalid_param(format!("{text:?} is not a valid identifier"));
        call.wrong_id().unwrap_or_else(unnamed)
    })
}
