//! Data in files: JSONL or parquet with a conversation or a text per row.
//!
//! ```text
//! {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "tools": […]}
//! {"text": "…"}
//! ```
//!
//! A parquet file has columns of these names; other columns, and what is null, are not looked at.
//!
//! Of a conversation every answer is learned, each as it is asked for: where the template takes lines of thought out of past
//! answers, a conversation is several sequences. Of a text everything is learned. Rows come in another order in every epoch,
//! which follows from the seed.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde::Deserialize;
use serde_json::Value;
use tangelo_chat::{Conversation, Message, Role, Tool};
use tangelo_core::random::Random;
use tangelo_formats::tokenizer::EncodeOptions;

use crate::error::{Error, Result};
use crate::examples::{Example, Writer};

/// Files of rows, in memory as text.
#[derive(Debug)]
pub struct Files {
    /// All rows, with their place for messages.
    rows: Vec<Row>,
    seed: u64,
    /// An epoch and the order of its rows.
    order: RefCell<Option<(u64, Vec<usize>)>>,
}

#[derive(Debug)]
struct Row {
    file: PathBuf,
    line: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Text(String),
    Conversation(Conversation),
}

/// A row as it is written.
#[derive(Default, Deserialize)]
struct Written {
    text: Option<String>,
    messages: Option<Vec<Message>>,
    /// A list, or the text of one, as data sets of the hub often have it.
    tools: Option<Value>,
}

/// The columns of a parquet file that are looked at.
const COLUMNS: [&str; 3] = ["text", "messages", "tools"];

impl Row {
    fn parse(file: &Path, line: usize, text: &str) -> Result<Row> {
        let wrong = |problem: String| Error::Row { path: file.to_path_buf(), line, problem };
        let written = serde_json::from_str(text).map_err(|cause| wrong(cause.to_string()))?;
        Row::new(file, line, written)
    }

    fn new(file: &Path, line: usize, written: Written) -> Result<Row> {
        let wrong = |problem: String| Error::Row { path: file.to_path_buf(), line, problem };
        let content = match written {
            Written { text: Some(text), .. } if !text.is_empty() => Content::Text(text),
            Written { messages: Some(messages), tools, .. } if !messages.is_empty() => {
                if !messages.iter().any(|message| message.role == Role::Assistant) {
                    let problem = "the conversation has no assistant message, so there is nothing to learn";
                    return Err(wrong(problem.into()));
                }
                let tools = list_of_tools(tools).map_err(wrong)?;
                Content::Conversation(Conversation { messages, tools })
            }
            _ => {
                return Err(wrong("expected an object with `messages` or a `text` that is not empty".into()));
            }
        };
        Ok(Row { file: file.to_path_buf(), line, content })
    }
}

fn list_of_tools(written: Option<Value>) -> std::result::Result<Vec<Tool>, String> {
    let list = match written {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
        Some(Value::String(text)) => {
            serde_json::from_str(&text).map_err(|cause| format!("`tools`: {cause}"))?
        }
        Some(list) => list,
    };
    Tool::list(list).map_err(|cause| cause.to_string())
}

impl Files {
    /// Reads and checks all rows.
    ///
    /// # Errors
    /// If a file cannot be read, a row is not what it should be, or there is none.
    pub fn open(paths: &[PathBuf], seed: u64) -> Result<Files> {
        let mut rows = Vec::new();
        for path in paths {
            match path.extension().is_some_and(|extension| extension == "parquet") {
                true => read_parquet(path, &mut rows)?,
                false => read_lines(path, &mut rows)?,
            }
        }
        match rows.is_empty() {
            true => Err(Error::NoRows { path: paths.first().cloned().unwrap_or_default() }),
            false => Ok(Files { rows, seed, order: RefCell::default() }),
        }
    }

    /// Number of rows.
    pub fn num_rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Row number `index` of the endless sequence of epochs.
    fn row(&self, index: u64) -> &Row {
        let count = self.rows.len() as u64;
        let (epoch, at) = (index / count, (index % count) as usize);
        let mut kept = self.order.borrow_mut();
        let order = match kept.take().filter(|(of, _)| *of == epoch) {
            Some((_, order)) => order,
            None => {
                let mut order: Vec<usize> = (0..self.rows.len()).collect();
                Random::new(self.seed).named("epoch").named(&epoch.to_string()).shuffle(&mut order);
                order
            }
        };
        let row = order[at];
        *kept = Some((epoch, order));
        &self.rows[row]
    }

    /// What is learned from row number `index`.
    ///
    /// # Errors
    /// If the template or the tokenizer refuses it.
    pub fn examples(&self, writer: &Writer, index: u64, prompt_weight: f32) -> Result<Vec<Example>> {
        let row = self.row(index);
        let examples = match &row.content {
            Content::Text(text) => text_example(writer, text).map(|example| vec![example]),
            Content::Conversation(conversation) => writer.examples(conversation, prompt_weight),
        };
        examples.map_err(|cause| Error::Row {
            path: row.file.clone(),
            line: row.line,
            problem: cause.to_string(),
        })
    }
}

fn read_lines(path: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let text = fs::read_to_string(path).map_err(|cause| Error::Io { path: path.to_path_buf(), cause })?;
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        rows.push(Row::parse(path, at + 1, line)?);
    }
    Ok(())
}

fn read_parquet(path: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let file = fs::File::open(path).map_err(|cause| Error::Io { path: path.to_path_buf(), cause })?;
    let failed = |cause: ParquetError| Error::Parquet { path: path.to_path_buf(), cause };
    let reader = SerializedFileReader::new(file).map_err(failed)?;
    let schema = reader.metadata().file_metadata().schema();
    let fields =
        schema.get_fields().iter().filter(|field| COLUMNS.contains(&field.name())).cloned().collect();
    let wanted = Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(failed)?;
    for (at, row) in reader.get_row_iter(Some(wanted)).map_err(failed)?.enumerate() {
        let wrong = |problem: String| Error::Row { path: path.to_path_buf(), line: at + 1, problem };
        let fields = row.map_err(failed)?;
        let value = object(fields.get_column_iter()).map_err(wrong)?;
        let written = serde_json::from_value(value).map_err(|cause| wrong(cause.to_string()))?;
        rows.push(Row::new(path, at + 1, written)?);
    }
    Ok(())
}

/// An object without what is null: in a parquet file every object has all fields that any of them has.
fn object<'f>(fields: impl Iterator<Item = (&'f String, &'f Field)>) -> std::result::Result<Value, String> {
    let fields = fields.filter(|(_, field)| !matches!(field, Field::Null));
    let fields = fields.map(|(name, field)| Ok((name.clone(), value(name, field)?)));
    Ok(Value::Object(fields.collect::<std::result::Result<_, String>>()?))
}

fn value(name: &str, field: &Field) -> std::result::Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(x) => (*x).into(),
        Field::Int(x) => (*x).into(),
        Field::Long(x) => (*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(text) => text.clone().into(),
        Field::Group(row) => object(row.get_column_iter())?,
        Field::ListInternal(list) => {
            let items = list.elements().iter().map(|item| value(name, item));
            Value::Array(items.collect::<std::result::Result<_, String>>()?)
        }
        _ => return Err(format!("`{name}` holds something that is neither text, number, list nor struct")),
    })
}

fn text_example(writer: &Writer, text: &str) -> Result<Example> {
    let mut tokens = writer.tokenizer.encode(text, EncodeOptions::default())?;
    tokens.extend(writer.tokenizer.eos());
    if tokens.len() < 2 {
        return Err(Error::TooShort);
    }
    let weights = vec![1.0; tokens.len()];
    Ok(Example { tokens, weights, is_text: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_checked_and_named() {
        let parse = |text: &str| Row::parse(Path::new("a.jsonl"), 3, text).map_err(|error| error.to_string());
        assert!(parse(r#"{"text": "x"}"#).is_ok());
        let tools =
            r#"{"messages": [{"role": "assistant", "content": "x"}], "tools": "[{\"name\": \"t\"}]"}"#;
        assert!(parse(tools).is_ok());
        assert!(parse(r#"{"messages": [{"role": "assistant", "content": "x"}]}"#).is_ok());
        for (text, expected) in [
            ("{", "line 3 of a.jsonl"),
            (r#"{"text": ""}"#, "`text` that is not empty"),
            (r#"{"messages": [{"content": "x"}]}"#, "role"),
            (r#"{"messages": [{"role": "assistant", "content": "x"}], "tools": "{"}"#, "`tools`"),
            (r#"{"txt": "x"}"#, "`messages` or a `text`"),
            (r#"{"messages": [{"role": "user", "content": "x"}]}"#, "no assistant message"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected) && error.contains("line 3 of a.jsonl"), "{error}");
        }
    }

    #[test]
    fn parquet_has_the_rows_of_jsonl() {
        let fixture =
            |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data").join(name);
        let contents = |name: &str| -> Vec<String> {
            let files = Files::open(&[fixture(name)], 0).expect("rows");
            files.rows.iter().map(|row| format!("{:?}", row.content)).collect()
        };
        assert_eq!(contents("talk.parquet"), contents("talk.jsonl"));
        let error = Files::open(&[fixture("gone.parquet")], 0).expect_err("no file").to_string();
        assert!(error.contains("gone.parquet"), "{error}");
    }

    #[test]
    fn every_epoch_has_every_row_once_and_another_order() {
        let row = |line: usize| Row { file: PathBuf::new(), line, content: Content::Text(line.to_string()) };
        let files = Files { rows: (0..20).map(row).collect(), seed: 5, order: RefCell::default() };
        let epoch =
            |n: u64| (n * 20..(n + 1) * 20).map(|index| files.row(index).line).collect::<Vec<usize>>();
        assert_ne!(epoch(0), epoch(1));
        for n in 0..3 {
            let mut lines = epoch(n);
            lines.sort_unstable();
            assert_eq!(lines, (0..20).collect::<Vec<usize>>());
        }
    }
}
