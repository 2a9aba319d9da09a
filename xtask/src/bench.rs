use crate::error::Result;
pub(crate) fn run(_arguments: &[String]) -> Result<()> {
    Err(crate::error::Error::new("not yet"))
}
