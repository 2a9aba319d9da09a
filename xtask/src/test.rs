use crate::error::Result;
use std::process::ExitCode;
pub(crate) fn run(_arguments: &[String]) -> Result<ExitCode> {
    Err(crate::error::Error::new("not yet"))
}
