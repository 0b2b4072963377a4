//! `${NAME}` in a configuration stands for a variable of the environment, so that files need not hold secrets.
//!
//! `${NAME:-TEXT}` stands for TEXT where the variable is not set or empty, as in the shell.

/// The text with every variable replaced by what `lookup` says.
///
/// # Errors
/// Half a sentence if a variable is not set and has no default, or a `${` is never closed.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once("${") {
        let Some((variable, after)) = behind.split_once('}') else {
            return Err(format!("has a `${{` without its `}}` in `{text}`"));
        };
        done += before;
        done += &match variable.split_once(":-") {
            Some((name, default)) => {
                lookup(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
            }
            None => lookup(variable).ok_or_else(|| {
                format!("uses the variable `{variable}`, which is not set in the environment; set it, or write `${{{variable}:-}}` for nothing")
            })?,
        };
        rest = after;
    }
    done += rest;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        expand(text, &|name| match name {
            "KEY" => Some("s3cret".into()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${KEY}".into()),
            _ => None,
        })
    }

    #[test]
    fn variables_are_replaced_once() {
        assert_eq!(expanded("no variables, $KEY and {KEY}"), Ok("no variables, $KEY and {KEY}".into()));
        assert_eq!(expanded("Bearer ${KEY}/${KEY}"), Ok("Bearer s3cret/s3cret".into()));
        assert_eq!(expanded("${EMPTY}|${EMPTY:-x}|${NONE:-a b}|${NONE:-}"), Ok("|x|a b|".into()));
        assert_eq!(expanded("${NESTED}"), Ok("${KEY}".into()), "values are not read as configurations");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(expanded("x ${NONE}").is_err_and(|problem| problem.contains("`NONE`, which is not set")));
        assert!(expanded("x ${KEY").is_err_and(|problem| problem.contains("without its `}` in `x ${KEY`")));
        assert!(expanded("${}").is_err());
    }
}
