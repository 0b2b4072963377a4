//! `tangelo generate`: one prompt, one answer.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tangelo_chat::{Conversation, Event, Message, Renderer, Role, StreamParser, ThinkingBudget};
use tangelo_chat::{budget::MARGIN_TOKENS_DEFAULT, event};
use tangelo_core::TokenId;
use tangelo_core::limits::RENDERED_BYTES_MAX;
use tangelo_engine::{Logprobs, Sequence};
use tangelo_formats::tokenizer::{EncodeOptions, Tokenizer};

use super::logits::parse_ids;
use crate::args::usage;
use crate::session::{
    Answer, ChatArgs, Ending, ModelArgs, Plan, SamplingArgs, Session, answer, sampling_params, to_answer,
};
use crate::terminal::Screen;

/// Answer one prompt
///
/// The prompt is a user's message in the model's own chat format, or with --raw a text to continue. The answer goes to
/// standard output as it is made, reasoning to standard error.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The prompt [default: standard input]
    #[arg(long, short, value_name = "TEXT")]
    prompt: Option<String>,
    /// Continue the prompt as plain text, without the chat format
    #[arg(long, conflicts_with_all = CHAT_OPTIONS)]
    raw: bool,
    /// Continue these token ids, separated by commas
    #[arg(long, value_name = "IDS", conflicts_with_all = ["prompt", "raw"], conflicts_with_all = CHAT_OPTIONS)]
    ids: Option<String>,
    /// Print one JSON object when the answer is complete
    #[arg(long)]
    json: bool,
    /// Print what it took on standard error
    #[arg(long)]
    stats: bool,
    /// Report the log-probability of each token and of its N best alternatives
    #[arg(long, value_name = "N", requires = "json")]
    logprobs: Option<usize>,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// What has no meaning without a chat format.
const CHAT_OPTIONS: [&str; 6] = ["system", "tools", "think", "no_think", "thinking_budget", "chat_template"];

/// A prompt, and how to read the answer to it.
struct Prompt {
    ids: Vec<TokenId>,
    parser: Option<StreamParser>,
    budget: Option<ThinkingBudget>,
}

/// Durations of the stages.
struct Timings {
    load: Duration,
    prompt: Duration,
}

/// Answers.
///
/// # Errors
/// If the model cannot be opened, the prompt does not fit, or standard output is closed.
pub fn run(args: Args) -> Result<()> {
    let started = Instant::now();
    let session = Session::open(&args.model)?;
    let load = started.elapsed();
    let prompt = prompt(&args, &session)?;
    session.check_prompt(prompt.ids.len())?;
    let said = args.sampling.overrides().or(session.suggested.overrides());
    let mut params = sampling_params(&said, session.model.config().vocab_size)?;
    params.logprobs = args.logprobs;
    params.check(session.model.config().vocab_size).map_err(usage)?;
    let seed = params.seed;

    let started = Instant::now();
    let mut sequence = Sequence::new(&session.model);
    session.prefill(&mut sequence, &prompt.ids, &|| false)?;
    let timings = Timings { load, prompt: started.elapsed() };
    let plan = Plan {
        params,
        limits: session.limits(said.max_tokens),
        stops: said.stop,
        parser: prompt.parser,
        budget: prompt.budget,
    };
    let mut screen = Screen::new(args.chat.hide_reasoning);
    let mut show = |event: &Event| if args.json { Ok(()) } else { Ok(screen.show(event)?) };
    let answer = answer(&session, sequence, plan, &|| false, &mut show)?;
    if args.json {
        let report = report(&session, &args, &answer, prompt.ids.len(), seed, &timings);
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    } else if session.tokenizer().is_some() {
        screen.finish()?;
    } else {
        writeln!(io::stdout(), "{}", joined(&answer.ids))?;
    }
    if answer.ending == Ending::ContextFull && !args.json {
        screen.note(&format!("the answer was cut: the context of {} tokens is full", session.context));
    }
    if args.stats {
        screen.note(&stats(&answer, prompt.ids.len(), seed, &timings));
    }
    Ok(())
}

fn prompt(args: &Args, session: &Session) -> Result<Prompt> {
    if let Some(ids) = &args.ids {
        let ids = parse_ids(ids).map_err(|problem| usage(format!("--ids: {problem}")))?;
        let vocab_size = session.model.config().vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            bail!("token id {id} is outside the model's vocabulary: its ids are 0 to {}", vocab_size - 1);
        }
        return Ok(Prompt { ids, parser: None, budget: None });
    }
    let tokenizer = session.require_tokenizer()?;
    if args.raw {
        let ids = tokenizer.encode(&text(args)?, EncodeOptions::default())?;
        ensure!(!ids.is_empty(), "the prompt is empty, so there is nothing to continue");
        return Ok(Prompt { ids, parser: None, budget: None });
    }
    let renderer = Renderer::new(session.chat_template(&args.chat)?);
    let system = args.chat.system.iter().map(|text| Message::new(Role::System, text));
    let conversation = Conversation {
        messages: system.chain([Message::new(Role::User, text(args)?)]).collect(),
        tools: args.chat.read_tools()?,
    };
    let rendered = renderer.render(&conversation, &to_answer(args.chat.thinking(), None))?;
    let starts_in_reasoning = rendered.starts_in_reasoning;
    let dialect = renderer.dialect();
    let budget = args.chat.thinking_budget.filter(|_| starts_in_reasoning);
    let budget = budget.map(|n| ThinkingBudget::new(tokenizer, dialect, n, MARGIN_TOKENS_DEFAULT));
    Ok(Prompt {
        ids: rendered.tokens(tokenizer)?.ids,
        parser: Some(StreamParser::new(dialect, &conversation.tools, starts_in_reasoning)),
        budget: budget.transpose()?,
    })
}

/// The prompt of the command line or of standard input, from which one newline at the end is not part of the prompt.
fn text(args: &Args) -> Result<String> {
    if let Some(text) = &args.prompt {
        return Ok(text.clone());
    }
    if io::stdin().is_terminal() {
        return Err(usage("there is no prompt: give --prompt TEXT, or a text on standard input"));
    }
    let mut bytes = Vec::new();
    let limit = RENDERED_BYTES_MAX as u64;
    io::stdin().take(limit + 1).read_to_end(&mut bytes).context("cannot read standard input")?;
    ensure!(
        bytes.len() <= RENDERED_BYTES_MAX,
        "standard input has more than {limit} bytes, the most of a prompt"
    );
    let mut text = String::from_utf8(bytes).context("standard input is not a text")?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

fn joined(ids: &[TokenId]) -> String {
    ids.iter().map(TokenId::to_string).collect::<Vec<_>>().join(",")
}

/// Everything about the answer as one JSON object.
fn report(
    session: &Session,
    args: &Args,
    answer: &Answer,
    prompt_tokens: usize,
    seed: u64,
    timings: &Timings,
) -> Value {
    let message = event::assistant_message(answer.events.clone());
    let finish_reason = match answer.ending {
        Ending::StopToken | Ending::StopString if answer.calls_tools() => "tool_calls",
        Ending::StopToken | Ending::StopString => "stop",
        Ending::Length => "length",
        Ending::ContextFull => "context_full",
        Ending::Interrupted => "interrupted",
    };
    let prompt_speed = prompt_tokens as f64 / timings.prompt.as_secs_f64().max(f64::MIN_POSITIVE);
    let mut report = json!({
        "model": args.model.model,
        "text": message.content,
        "reasoning": message.reasoning_content,
        "tool_calls": message.tool_calls,
        "finish_reason": finish_reason,
        "prompt_tokens": prompt_tokens,
        "answer_tokens": answer.ids.len(),
        "token_ids": answer.ids,
        "seed": seed,
        "timings": {
            "load_s": timings.load.as_secs_f64(),
            "prompt_s": timings.prompt.as_secs_f64(),
            "answer_s": (answer.first + answer.decode).as_secs_f64(),
            "prompt_tokens_per_s": prompt_speed,
            "answer_tokens_per_s": answer.tokens_per_second(),
        },
    });
    if args.logprobs.is_some() {
        let tokens = answer.ids.iter().zip(&answer.logprobs);
        report["logprobs"] = tokens.map(|(&id, l)| logprobs(id, l, session.tokenizer())).collect();
    }
    report
}

fn logprobs(id: TokenId, logprobs: &Logprobs, tokenizer: Option<&Tokenizer>) -> Value {
    let entry = |id: TokenId, logprob: f32| {
        let token = tokenizer.map(|tokenizer| tokenizer.decode(&[id], false));
        json!({ "id": id, "token": token, "logprob": logprob })
    };
    let mut value = entry(id, logprobs.chosen);
    value["top"] = logprobs.top.iter().map(|&(id, logprob)| entry(id, logprob)).collect();
    value
}

fn stats(answer: &Answer, prompt_tokens: usize, seed: u64, timings: &Timings) -> String {
    let (load, prompt, decode) = (
        timings.load.as_secs_f64(),
        timings.prompt.as_secs_f64(),
        (answer.first + answer.decode).as_secs_f64(),
    );
    let speed = answer.tokens_per_second().map_or(String::new(), |s| format!(", {s:.1} tokens/s"));
    let prompt_speed = prompt_tokens as f64 / prompt.max(f64::MIN_POSITIVE);
    format!(
        "opened in {load:.2} s\nprompt {prompt_tokens} tokens in {prompt:.2} s, {prompt_speed:.1} tokens/s\n\
         answer {} tokens in {decode:.2} s{speed}\nseed {seed}",
        answer.ids.len()
    )
}
