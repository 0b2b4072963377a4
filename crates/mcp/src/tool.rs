//! The tools of all servers under names of their own.
//!
//! A model sees one flat list, so two servers may not have tools of the same name, and names may only have the
//! characters and the length that chat APIs allow. The order is that of the servers in the configuration and, within a
//! server, of the names: the same tools always make the same prompt, whatever order a server lists them in.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};
use tangelo_chat::Tool;
use tangelo_core::limits::MCP_TOOL_BYTES_MAX;

use crate::allowed::matches_any;
use crate::config::ServerConfig;
use crate::error::{Error, Result};

/// Longest name of a tool in chat APIs, which allow letters, digits, `_` and `-`.
const NAME_LEN_MAX: usize = 64;

/// A tool of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct McpTool {
    tool: Tool,
    server_name: String,
    original_name: String,
    hints: Hints,
    is_allowed: bool,
    /// Place of its server in the configuration.
    pub(crate) server: usize,
}

/// What the server says about the effects of a tool. Hints for whoever decides; nothing guarantees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hints {
    /// It changes nothing.
    pub is_read_only: bool,
    /// It may change or remove what is there, rather than only add to it.
    pub is_destructive: bool,
    /// A second call with the same arguments has no further effect.
    pub is_idempotent: bool,
}

impl Hints {
    /// The protocol's defaults take the worst for granted.
    fn new(annotations: Option<&rmcp::model::ToolAnnotations>) -> Hints {
        let is_read_only = annotations.and_then(|a| a.read_only_hint).unwrap_or(false);
        Hints {
            is_read_only,
            is_destructive: !is_read_only && annotations.and_then(|a| a.destructive_hint).unwrap_or(true),
            is_idempotent: is_read_only || annotations.and_then(|a| a.idempotent_hint).unwrap_or(false),
        }
    }
}

impl McpTool {
    /// The name that the model knows it by.
    pub fn name(&self) -> &str {
        self.tool.name()
    }

    /// Its definition for a conversation.
    pub fn tool(&self) -> &Tool {
        &self.tool
    }

    /// The name of its server.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// The name that its server knows it by.
    pub fn original_name(&self) -> &str {
        &self.original_name
    }

    /// What its server says about its effects.
    pub fn hints(&self) -> Hints {
        self.hints
    }

    /// Whether the configuration allows to call it without asking.
    pub fn is_allowed(&self) -> bool {
        self.is_allowed
    }
}

/// The tools of all servers, in order. `lists` has, for each server, what it offers.
///
/// # Errors
/// If a definition is too long, or not one of a tool.
pub(crate) fn catalog(servers: &[&ServerConfig], lists: Vec<Vec<rmcp::model::Tool>>) -> Result<Vec<McpTool>> {
    let mut offered = Vec::new();
    for (place, list) in lists.into_iter().enumerate() {
        // A name that a server has twice can only be called once.
        let list: BTreeMap<_, _> = list.into_iter().map(|tool| (tool.name.to_string(), tool)).collect();
        offered.extend(list.into_values().map(|tool| (place, tool)));
    }
    let server_name = |place: usize| servers.get(place).map_or("", |server| server.name.as_str());
    let names = names(offered.iter().map(|(place, tool)| (server_name(*place), tool.name.as_ref())));
    let tools = names.into_iter().zip(offered).map(|(name, (place, offered))| {
        let server = server_name(place).to_owned();
        let original_name = offered.name.to_string();
        let definition = definition(&name, &offered);
        let bytes = definition.to_string().len();
        if bytes > MCP_TOOL_BYTES_MAX {
            return Err(Error::ToolTooLong { server, tool: original_name, bytes });
        }
        let allow = servers.get(place).map_or(&[][..], |server| server.allow.as_slice());
        Ok(McpTool {
            tool: Tool::new(definition, 0)
                .map_err(|error| Error::Tools { server: server.clone(), problem: error.to_string() })?,
            hints: Hints::new(offered.annotations.as_ref()),
            is_allowed: matches_any(allow, &original_name),
            server_name: server,
            original_name,
            server: place,
        })
    });
    tools.collect()
}

fn definition(name: &str, offered: &rmcp::model::Tool) -> Value {
    let mut function = json!({ "name": name });
    if let (Some(function), Some(description)) = (function.as_object_mut(), &offered.description) {
        function.insert("description".into(), description.as_ref().into());
    }
    if let Some(function) = function.as_object_mut() {
        function.insert("parameters".into(), Value::Object(offered.input_schema.as_ref().clone()));
    }
    json!({ "type": "function", "function": function })
}

/// A name for each (server, tool): the tool's own where no other has it, else with the server's before it.
fn names<'a>(tools: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Vec<String> {
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for (_, tool) in tools.clone() {
        *uses.entry(clean(tool)).or_default() += 1;
    }
    let mut taken: HashSet<String> =
        uses.iter().filter(|(_, n)| **n == 1).map(|(name, _)| name.clone()).collect();
    tools
        .map(|(server, tool)| {
            let own = clean(tool);
            if uses.get(&own) == Some(&1) {
                return own;
            }
            let mut name = clean(&format!("{server}__{tool}"));
            let base = name.clone();
            let mut number = 1;
            while !taken.insert(name.clone()) {
                number += 1;
                let suffix = format!("_{number}");
                let kept: String = base.chars().take(NAME_LEN_MAX - suffix.len()).collect();
                name = kept + &suffix;
            }
            name
        })
        .collect()
}

/// The text with what a name may not have replaced by `_`, and cut to what fits.
fn clean(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = text.chars().map(allowed).take(NAME_LEN_MAX).collect();
    if name.is_empty() { "_".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_valid() {
        let long = "x".repeat(70);
        let tools = [
            ("files", "read"),
            ("files", "list files"),
            ("my notes", "read"),
            ("notes", "search"),
            ("my_notes", "read"),
            ("a", long.as_str()),
            ("b", long.as_str()),
            ("a", "\u{e9}"),
            ("b", "-"),
            ("c", "files__read"),
        ];
        let named = names(tools.into_iter());
        assert_eq!(named[1], "list_files");
        assert_eq!((named[2].as_str(), named[4].as_str()), ("my_notes__read", "my_notes__read_2"));
        assert_eq!((named[0].as_str(), named[9].as_str()), ("files__read_2", "files__read"));
        assert_eq!((named[3].as_str(), named[7].as_str(), named[8].as_str()), ("search", "_", "-"));
        assert!(named[5].starts_with("a__xxx") && named[6].starts_with("b__xxx"), "{named:?}");
        let distinct: HashSet<&String> = named.iter().collect();
        assert_eq!(distinct.len(), named.len(), "{named:?}");
        for name in &named {
            assert!(name.len() <= NAME_LEN_MAX && *name == clean(name), "{name}");
        }
    }

    #[test]
    fn many_long_names_stay_apart() {
        let tools: Vec<String> = (0..120).map(|i| format!("{}{i}", "y".repeat(80))).collect();
        let named = names(tools.iter().map(|tool| ("server", tool.as_str())));
        assert_eq!(named.iter().collect::<HashSet<_>>().len(), 120);
        assert!(named.iter().all(|name| name.len() <= NAME_LEN_MAX));
    }
}
