//! Data in files: JSONL or parquet with a conversation or a text per row.
//!
//! ```text
//! {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "tools": […]}
//! {"text": "…"}
//! ```
//!
//! A parquet file has columns of these names; other columns, and what is null, are not looked at.
//!
//! A thought in `<think>` at the beginning of an answer is taken for its `reasoning_content`. A row with both keys is a
//! conversation.
//!
//! Of a conversation every answer is learned, each as it is asked for: where the template takes lines of thought out of past
//! answers, a conversation is several sequences. Of a text everything is learned. Rows come in another order in every epoch,
//! which follows from the seed.
//!
//! Every row is read and checked at the beginning. What stays in memory is where it lies (32 bytes); it is read again when its
//! turn comes, so a data set may be larger than memory. Rows of parquet, which cannot be read one by one, lie in a temporary
//! file meanwhile.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde::Deserialize;
use serde_json::Value;
use tangelo_chat::{Conversation, Message, Renderer, Role, Tool};
use tangelo_core::random::Random;
use tangelo_formats::tokenizer::EncodeOptions;

use crate::caught::caught;
use crate::error::{Error, Result};
use crate::examples::{Example, Writer, whole};

/// Files of rows.
#[derive(Debug)]
pub struct Files {
    sources: Vec<Source>,
    places: Vec<Place>,
    seed: u64,
    /// How often a conversation loses its lines of thought.
    drop_thoughts: f64,
    /// An epoch and the order of its rows.
    order: RefCell<Option<(u64, Vec<usize>)>>,
}

/// A file with an object per line.
#[derive(Debug)]
struct Source {
    /// Its name for messages, which may be that of the file whose rows it holds.
    path: PathBuf,
    file: File,
}

/// Where a row lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    source: usize,
    /// From 1 on.
    line: usize,
    start: u64,
    len: usize,
}

#[derive(Debug, PartialEq)]
enum Content {
    Text(String),
    Conversation(Conversation),
}

/// A row as it is written.
#[derive(Deserialize)]
struct Written {
    text: Option<String>,
    messages: Option<Vec<Message>>,
    /// A list, or the text of one, as data sets of the hub often have it.
    tools: Option<Value>,
}

/// The columns of a parquet file that are looked at.
const COLUMNS: [&str; 3] = ["text", "messages", "tools"];

impl Content {
    fn parse(line: &[u8]) -> std::result::Result<Content, String> {
        match serde_json::from_slice(line).map_err(|cause| cause.to_string())? {
            Written { messages: Some(mut messages), tools, .. } if !messages.is_empty() => {
                messages.iter_mut().for_each(split_thought);
                if !messages.iter().skip(1).any(|message| message.role == Role::Assistant) {
                    return Err(
                        "the conversation has no assistant message that answers another one, so there is \
                                nothing to learn"
                            .into(),
                    );
                }
                Ok(Content::Conversation(Conversation { messages, tools: list_of_tools(tools)? }))
            }
            Written { text: Some(text), .. } if !text.is_empty() => Ok(Content::Text(text)),
            _ => Err("expected an object with `messages` or a `text` that is not empty".into()),
        }
    }
}

/// Takes a thought out of what an assistant says, where data sets often have it.
fn split_thought(message: &mut Message) {
    let is_whole = message.role == Role::Assistant && message.reasoning_content.is_none();
    let content = message.content.as_deref().filter(|_| is_whole).map(str::trim_start);
    if let Some((thought, said)) =
        content.and_then(|content| content.strip_prefix("<think>")?.split_once("</think>"))
    {
        let (thought, said) = (thought.trim().to_owned(), said.trim_start().to_owned());
        (message.reasoning_content, message.content) = (Some(thought), Some(said));
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

impl Source {
    fn io(&self) -> impl Fn(std::io::Error) -> Error {
        let path = self.path.clone();
        move |cause| Error::Io { path: path.clone(), cause }
    }

    fn wrong(&self, line: usize, problem: String) -> Error {
        Error::Row { path: self.path.clone(), line, problem }
    }

    fn content(&self, place: Place) -> Result<Content> {
        let mut line = vec![0; place.len];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(place.start)).map_err(self.io())?;
        file.read_exact(&mut line).map_err(self.io())?;
        Content::parse(&line).map_err(|problem| self.wrong(place.line, problem))
    }

    /// The places of the rows of a file.
    fn places(&self, source: usize) -> Result<Vec<Place>> {
        let (mut places, mut start, mut bytes) = (Vec::new(), 0, Vec::new());
        let mut lines = BufReader::new(&self.file);
        for line in 1.. {
            bytes.clear();
            let len = lines.read_until(b'\n', &mut bytes).map_err(self.io())?;
            if len == 0 {
                break;
            }
            if !bytes.trim_ascii().is_empty() {
                places.push(Place { source, line, start, len });
            }
            start += len as u64;
        }
        Ok(places)
    }
}

impl Files {
    /// Finds all rows; [`Files::check`] looks into them. `drop_thoughts`: how often a conversation is learned without its lines of thought.
    ///
    /// # Errors
    /// If a file cannot be read, or has no rows.
    pub fn open(paths: &[PathBuf], seed: u64, drop_thoughts: f64) -> Result<Files> {
        let (mut sources, mut places) = (Vec::new(), Vec::new());
        for path in paths {
            let file = File::open(path).map_err(|cause| Error::Io { path: path.clone(), cause })?;
            let source = Source { path: path.clone(), file };
            let source = match path.extension().is_some_and(|extension| extension == "parquet") {
                true => caught(|| unpacked(&source)).unwrap_or_else(|problem| {
                    let (path, cause) = (path.clone(), ParquetError::General(problem));
                    Err(Error::Parquet { path, cause })
                })?,
                false => source,
            };
            places.extend(source.places(sources.len())?);
            sources.push(source);
        }
        match places.is_empty() {
            true => Err(Error::NoRows { path: paths.first().cloned().unwrap_or_default() }),
            false => Ok(Files { sources, places, seed, drop_thoughts, order: RefCell::default() }),
        }
    }

    /// Number of rows.
    pub fn num_rows(&self) -> u64 {
        self.places.len() as u64
    }

    /// Reads and writes every row once, so that one which cannot be learned is found before the first step.
    ///
    /// # Errors
    /// If a row is not what it should be, or the template refuses it.
    pub fn check(&self, writer: &Writer) -> Result<()> {
        self.places.iter().try_for_each(|place| {
            let source = &self.sources[place.source];
            match source.content(*place)? {
                Content::Text(_) => Ok(()),
                Content::Conversation(conversation) => {
                    writer.check(&conversation).map_err(|cause| source.wrong(place.line, cause.to_string()))
                }
            }
        })
    }

    /// The text of row number `index`, for learning a tokenizer.
    ///
    /// # Errors
    /// As [`Files::examples`].
    pub fn text(&self, renderer: &Renderer, index: u64) -> Result<String> {
        let place = self.place(index);
        let source = &self.sources[place.source];
        match source.content(place)? {
            Content::Text(text) => Ok(text),
            Content::Conversation(conversation) => {
                whole(renderer, &conversation).map_err(|cause| source.wrong(place.line, cause.to_string()))
            }
        }
    }

    /// Where row number `index` of the endless sequence of epochs lies.
    fn place(&self, index: u64) -> Place {
        let count = self.places.len() as u64;
        let (epoch, at) = (index / count, (index % count) as usize);
        let mut kept = self.order.borrow_mut();
        let order = match kept.take().filter(|(of, _)| *of == epoch) {
            Some((_, order)) => order,
            None => {
                let mut order: Vec<usize> = (0..self.places.len()).collect();
                Random::new(self.seed).named("epoch").named(&epoch.to_string()).shuffle(&mut order);
                order
            }
        };
        let place = self.places[order[at]];
        *kept = Some((epoch, order));
        place
    }

    /// A conversation with its lines of thought, or without.
    fn with_thoughts(&self, mut conversation: Conversation, index: u64) -> Conversation {
        if Random::new(self.seed).named("thoughts").named(&index.to_string()).chance(self.drop_thoughts) {
            conversation.messages.iter_mut().for_each(|message| message.reasoning_content = None);
        }
        conversation
    }

    /// What is learned from row number `index`.
    ///
    /// # Errors
    /// If the template or the tokenizer refuses it, or its file has changed.
    pub fn examples(&self, writer: &Writer, index: u64, prompt_weight: f32) -> Result<Vec<Example>> {
        let place = self.place(index);
        let source = &self.sources[place.source];
        let examples = match source.content(place)? {
            Content::Text(text) => text_examples(writer, &text),
            Content::Conversation(conversation) => {
                writer.examples(&self.with_thoughts(conversation, index), prompt_weight)
            }
        };
        examples.map_err(|cause| source.wrong(place.line, cause.to_string()))
    }
}

/// The rows of a parquet file as lines of a temporary file.
fn unpacked(packed: &Source) -> Result<Source> {
    let Source { path, file } = packed;
    let failed = |cause: ParquetError| Error::Parquet { path: path.clone(), cause };
    let reader = SerializedFileReader::new(file.try_clone().map_err(packed.io())?).map_err(failed)?;
    let schema = reader.metadata().file_metadata().schema();
    let fields =
        schema.get_fields().iter().filter(|field| COLUMNS.contains(&field.name())).cloned().collect();
    let wanted = Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(failed)?;
    let temporary = |cause| Error::Io { path: std::env::temp_dir(), cause };
    let mut lines = BufWriter::new(tempfile::tempfile().map_err(temporary)?);
    for (at, row) in reader.get_row_iter(Some(wanted)).map_err(failed)?.enumerate() {
        let fields = row.map_err(failed)?;
        let line = object(fields.get_column_iter()).map_err(|problem| packed.wrong(at + 1, problem))?;
        writeln!(lines, "{line}").map_err(temporary)?;
    }
    let mut file = lines.into_inner().map_err(|cause| temporary(cause.into_error()))?;
    file.rewind().map_err(temporary)?;
    Ok(Source { path: path.clone(), file })
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

/// A text as one example; none if nothing in it follows anything.
fn text_examples(writer: &Writer, text: &str) -> Result<Vec<Example>> {
    let mut tokens = writer.tokenizer.encode(text, EncodeOptions::default())?;
    tokens.extend(writer.tokenizer.eos());
    let weights = vec![1.0; tokens.len()];
    let example = Example { tokens, weights, is_text: true };
    Ok(Some(example).filter(|example| example.tokens.len() > 1).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// Files of one temporary file with these lines.
    fn files(lines: &str) -> Result<Files> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, lines).expect("a file");
        Files::open(&[path], 5, 0.5)
    }

    fn contents(files: &Files) -> Vec<Content> {
        let content = |place: &Place| files.sources[place.source].content(*place).expect("a row");
        files.places.iter().map(content).collect()
    }

    #[test]
    fn rows_are_checked_and_named() {
        let parse = |text: &str| {
            let files = files(&format!("{{\"text\": \"x\"}}\n\n{text}")).expect("rows");
            files.sources[0].content(files.places[1]).map_err(|error| error.to_string())
        };
        assert!(parse(r#"{"text": "x"}"#).is_ok());
        let tools = r#"{"messages": [{"role": "user"}, {"role": "assistant", "content": "x"}], "tools": "[{\"name\": \"t\"}]"}"#;
        assert!(parse(tools).is_ok());
        for (text, expected) in [
            ("{", "EOF"),
            (r#"{"text": ""}"#, "`text` that is not empty"),
            (r#"{"text": "x", "messages": [{"role": "user", "content": "x"}]}"#, "no assistant message"),
            (r#"{"messages": [{"content": "x"}]}"#, "role"),
            (r#"{"messages": [{"role": "assistant", "content": "x"}]}"#, "no assistant message"),
            (r#"{"messages": [{"role": "user"}, {"role": "assistant"}], "tools": "{"}"#, "`tools`"),
            (r#"{"txt": "x"}"#, "`messages` or a `text`"),
            (r#"{"messages": [{"role": "user", "content": "x"}]}"#, "no assistant message"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected) && error.contains("line 3 of "), "{error}");
            assert!(error.contains("a.jsonl"), "{error}");
        }
    }

    #[test]
    fn rows_are_read_again_where_they_lie() {
        let files = files("{\"text\": \"one\"}\r\n \n{\"text\": \"zw\u{f6}lf\"}\n{\"text\": \"three\"}")
            .expect("rows");
        assert_eq!(contents(&files), ["one", "zw\u{f6}lf", "three"].map(|text| Content::Text(text.into())));
    }

    #[test]
    fn thoughts_are_found_within_what_is_said() {
        let of = |content: &str| {
            let row = json!({"messages": [{"role": "user"}, {"role": "assistant", "content": content}]});
            let files = files(&row.to_string()).expect("a row");
            let Content::Conversation(mut conversation) = contents(&files).remove(0) else { panic!("{row}") };
            let Message { content, reasoning_content, .. } = conversation.messages.remove(1);
            (content.unwrap_or_default(), reasoning_content)
        };
        assert_eq!(of("<think>\nhm\n</think>\n\nYes"), ("Yes".into(), Some("hm".into())));
        assert_eq!(of("Say </think>."), ("Say </think>.".into(), None));
        assert_eq!(of("<think> for ever"), ("<think> for ever".into(), None));
    }

    #[test]
    fn parquet_has_the_rows_of_jsonl() {
        let fixture =
            |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data").join(name);
        let of = |name: &str| contents(&Files::open(&[fixture(name)], 0, 0.0).expect("rows"));
        assert_eq!(of("talk.parquet"), of("talk.jsonl"));
        assert_eq!(of("talk-zstd.parquet"), of("talk.jsonl"));
        let error = Files::open(&[fixture("gone.parquet")], 0, 0.0).expect_err("no file").to_string();
        assert!(error.contains("gone.parquet"), "{error}");
    }

    #[test]
    fn damaged_parquet_is_an_error_or_other_rows() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/talk.parquet");
        let whole = std::fs::read(path).expect("a file");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.parquet");
        let open = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("a file");
            Files::open(std::slice::from_ref(&path), 0, 0.0)
        };
        assert!(open(&whole).is_ok());
        for at in 0..whole.len() {
            let _ = open(&whole[..at]).expect_err("it lacks its end");
            for damage in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= damage;
                let _ = open(&bytes);
            }
        }
    }

    #[test]
    fn thoughts_are_dropped_as_often_as_said_and_always_of_the_same_rows() {
        let row = r#"{"messages": [{"role": "user"}, {"role": "assistant", "reasoning_content": "hm"}]}"#;
        let files = files(row).expect("rows");
        let thinks = |index: u64| {
            let Content::Conversation(conversation) = contents(&files).remove(0) else { return false };
            files.with_thoughts(conversation, index).messages[1].reasoning_content.is_some()
        };
        let first: Vec<bool> = (0..200).map(thinks).collect();
        assert_eq!(first, (0..200).map(thinks).collect::<Vec<bool>>());
        assert!((80..120).contains(&first.iter().filter(|thinks| **thinks).count()));
    }

    #[test]
    fn every_epoch_has_every_row_once_and_another_order() {
        let lines: String = (0..20).map(|line| format!("{{\"text\": \"{line}\"}}\n")).collect();
        let files = files(&lines).expect("rows");
        let epoch =
            |n: u64| (n * 20..(n + 1) * 20).map(|index| files.place(index).line).collect::<Vec<usize>>();
        assert_ne!(epoch(0), epoch(1));
        for n in 0..3 {
            let mut lines = epoch(n);
            lines.sort_unstable();
            assert_eq!(lines, (1..=20).collect::<Vec<usize>>());
        }
    }
}
