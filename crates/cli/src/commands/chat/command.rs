//! Lines that begin with a slash.

/// What `/help` prints.
pub const HELP: &str = "\
/think on|off     let the model think before it answers, or not
/system [TEXT]    set the system message; without TEXT remove it
/tools [FILE|off] show, read or drop the tools that the model may call
/result TEXT      answer a tool call (a plain line does the same while one is open)
/undo             take back the last exchange
/retry            answer the last message again, differently
/edit [TEXT]      change the last message and answer it again
/clear            begin again, with the same system message and tools
/save FILE        write the conversation, and the model's state beside it
/load FILE        read a conversation
/stats            sizes and speeds
/quit             leave, as Ctrl-D does
A line that ends with \\ goes on; \"\"\" begins and ends a text of several lines; // begins a message with a slash.
";

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// An empty line.
    Nothing,
    /// A message.
    Say(String),
    /// The result of the open tool call.
    Result(String),
    /// `None` asks how it is.
    Think(Option<bool>),
    /// An empty text removes it.
    System(String),
    /// `None` asks which there are.
    Tools(Option<String>),
    /// Take the last exchange back.
    Undo,
    /// Answer again.
    Retry,
    /// Change the last message; `None` asks for the text.
    Edit(Option<String>),
    /// Begin again.
    Clear,
    /// To this file.
    Save(String),
    /// From this file.
    Load(String),
    /// Sizes and speeds.
    Stats,
    /// The list of commands.
    Help,
    /// Leave.
    Quit,
}

impl Command {
    /// Understands a message or command.
    ///
    /// # Errors
    /// A sentence for an unknown command or a wrong argument.
    pub fn parse(line: &str) -> Result<Command, String> {
        let Some(rest) = line.strip_prefix('/') else {
            return Ok(if line.trim().is_empty() { Command::Nothing } else { Command::Say(line.into()) });
        };
        if rest.starts_with('/') {
            return Ok(Command::Say(rest.into()));
        }
        let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let argument = argument.trim();
        let given = || (!argument.is_empty()).then(|| argument.to_owned());
        let needs = |what: &str| given().ok_or_else(|| format!("/{name} needs {what}"));
        let command = match name {
            "think" => Command::Think(match argument {
                "" => None,
                "on" => Some(true),
                "off" => Some(false),
                other => return Err(format!("/think is on or off, not `{other}`")),
            }),
            "system" => Command::System(argument.into()),
            "tools" => Command::Tools(given()),
            "result" => Command::Result(argument.into()),
            "edit" => Command::Edit(given()),
            "save" => Command::Save(needs("the name of a file")?),
            "load" => Command::Load(needs("the name of a file")?),
            _ if !argument.is_empty() => return Err(unknown(name, "takes nothing behind it")),
            "undo" => Command::Undo,
            "retry" => Command::Retry,
            "clear" => Command::Clear,
            "stats" => Command::Stats,
            "help" => Command::Help,
            "quit" | "exit" => Command::Quit,
            _ => return Err(unknown(name, "is no command")),
        };
        Ok(command)
    }
}

fn unknown(name: &str, why: &str) -> String {
    let known = ["undo", "retry", "clear", "stats", "help", "quit", "exit"].contains(&name);
    let why = if known { why } else { "is no command" };
    format!("/{name} {why}; /help lists the commands, and // begins a message with a slash")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_commands_are_told_apart() {
        let say = |text: &str| Ok(Command::Say(text.into()));
        assert_eq!(Command::parse("hello /undo"), say("hello /undo"));
        assert_eq!(Command::parse("//etc is a folder"), say("/etc is a folder"));
        assert_eq!(Command::parse("  "), Ok(Command::Nothing));
        assert_eq!(Command::parse("/think off"), Ok(Command::Think(Some(false))));
        assert_eq!(Command::parse("/think"), Ok(Command::Think(None)));
        assert_eq!(
            Command::parse("/system  You are\nbrief. "),
            Ok(Command::System("You are\nbrief.".into()))
        );
        assert_eq!(Command::parse("/system"), Ok(Command::System(String::new())));
        assert_eq!(Command::parse("/tools off"), Ok(Command::Tools(Some("off".into()))));
        assert_eq!(Command::parse("/edit"), Ok(Command::Edit(None)));
        assert_eq!(Command::parse("/exit"), Ok(Command::Quit));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, expected) in [
            ("/think maybe", "on or off, not `maybe`"),
            ("/save", "/save needs the name of a file"),
            ("/undo 3", "/undo takes nothing behind it"),
            ("/unod", "/unod is no command"),
            ("/unod 3", "/unod is no command"),
        ] {
            let problem = Command::parse(line).expect_err(line);
            assert!(problem.contains(expected), "{line}: {problem}");
        }
    }

    #[test]
    fn help_names_every_command() {
        for name in
            ["think", "system", "tools", "result", "undo", "retry", "edit", "clear", "save", "load", "stats"]
        {
            assert!(HELP.contains(&format!("/{name} ")), "{name}");
            let sample = if name == "think" { "/think on".into() } else { format!("/{name} x") };
            let plain = Command::parse(&format!("/{name}"));
            assert!(Command::parse(&sample).is_ok() || plain.is_ok(), "{name}");
        }
    }
}
