//! The command line.

mod health;
mod operate;
mod reports;
mod room;
mod store;
mod tokens;
mod user;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_room::{
    reports::SignatureQuery,
    triage::{TriageFilter, TriageMode},
};
use exeunt_store::Store;

use crate::{
    app::{self, database},
    app_services,
    config::{self, Config},
    failure::Failure,
    logging, malloc,
};

/// A light Matrix homeserver that never loses a departure.
///
/// Exit codes: 0 done, 1 the command failed, 2 the configuration or the command line is wrong, 3
/// the store cannot be used, 4 an address cannot be listened on.
#[derive(Debug, Parser)]
#[command(version, name = "exeunt")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until SIGTERM
    Serve(At),
    /// Ask the running server whether it is well (for a container's health check)
    Health(At),
    /// Print the example configuration, or check one
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Accounts
    #[command(subcommand)]
    User(UserCommand),
    /// Tokens that let people register while registration is closed (the server must be running)
    #[command(subcommand)]
    RegistrationToken(TokenCommand),
    /// Departures that no server has taken yet: who left which room, and what the servers said so
    /// far (also beside the running server, as the next five)
    #[command(args_conflicts_with_subcommands = true)]
    Departures {
        #[command(flatten)]
        report: Report,
        #[command(subcommand)]
        command: Option<DeparturesCommand>,
    },
    /// Invites and knocks of users of this server that wait for an answer
    #[command(args_conflicts_with_subcommands = true)]
    Invites {
        #[command(flatten)]
        report: Report,
        #[command(subcommand)]
        command: Option<InvitesCommand>,
    },
    /// What users have reported to the administrators
    Reports(Report),
    /// Every membership change in a room: who signed it, how it came, what decided, who has it
    Timeline {
        room_id: OwnedRoomId,
        /// Only this user's changes
        user_id: Option<OwnedUserId>,
        #[command(flatten)]
        report: Report,
    },
    /// Every signature that this server put on an event, and for what
    Signatures {
        #[command(flatten)]
        report: Report,
        /// Only for this purpose
        #[arg(long)]
        purpose: Option<String>,
        /// Only on this event
        #[arg(long)]
        event: Option<OwnedEventId>,
        /// Only in handshakes with this server
        #[arg(long)]
        peer: Option<OwnedServerName>,
    },
    /// Rooms
    #[command(subcommand)]
    Room(RoomCommand),
    /// The database
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Debug, Args)]
struct At {
    /// The configuration file
    #[arg(long, default_value = "exeunt.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Report {
    #[command(flatten)]
    at: At,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every option with its default
    Example,
    /// Say what is wrong with a configuration
    Check(At),
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Create an account, with a generated password unless one is given (the server must be stopped)
    Create {
        #[command(flatten)]
        at: At,
        /// The part of the user id before the colon
        #[arg(long)]
        name: String,
        /// Make the account an administrator
        #[arg(long)]
        admin: bool,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Close an account for good: it leaves every room, rejects every invite and retracts every
    /// knock, also if the server is stopped meanwhile (the server must be running)
    Deactivate {
        user_id: OwnedUserId,
        /// Hide what they sent from those who were not in the room then; it is never taken back
        #[arg(long)]
        erase: bool,
        #[command(flatten)]
        report: Report,
    },
    /// Say how far the departure of a closed account is (the server must be running)
    Departure {
        user_id: OwnedUserId,
        #[command(flatten)]
        report: Report,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token, and print it
    Create {
        /// The token itself; the server makes one up by default
        #[arg(long)]
        token: Option<String>,
        /// How many accounts it is good for; any number by default
        #[arg(long)]
        uses: Option<u64>,
        /// For how long it is good, like 7d; for ever by default
        #[arg(long, value_parser = duration)]
        expires_in: Option<Duration>,
        #[command(flatten)]
        report: Report,
    },
    /// List all tokens, with how often each was used
    List(Report),
    /// Delete a token: nobody registers with it any more
    Delete {
        token: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Subcommand)]
enum DeparturesCommand {
    /// Give a departure up that no server takes: the user stays out, and the room is not told (the
    /// server must be running)
    Abandon {
        user_id: OwnedUserId,
        room_id: OwnedRoomId,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Subcommand)]
enum InvitesCommand {
    /// Ask the servers that must know whether each pending invite and knock still stands (the
    /// server must be running)
    Check(Report),
    /// List the pending invites that match all that is given, or turn them down (the server must be
    /// running)
    Triage {
        /// Only invites of this user of ours
        #[arg(long)]
        user: Option<OwnedUserId>,
        /// Only those by this user
        #[arg(long)]
        inviter: Option<OwnedUserId>,
        /// Only those by users of servers that match: * and ? as in server ACLs
        #[arg(long)]
        server: Option<String>,
        /// Only those to this room
        #[arg(long)]
        room: Option<OwnedRoomId>,
        /// Only those that came so long ago, like 2h or 30d
        #[arg(long, value_parser = duration)]
        older_than: Option<Duration>,
        /// Only those that came since then: with --older-than, a window of time
        #[arg(long, value_parser = duration)]
        newer_than: Option<Duration>,
        /// Reject them, as their users could
        #[arg(long, conflicts_with = "silent")]
        reject: bool,
        /// End them here, and let no other server know
        #[arg(long)]
        silent: bool,
        #[command(flatten)]
        report: Report,
    },
}

#[derive(Debug, Subcommand)]
enum RoomCommand {
    /// Take a user of this server out of a room, or turn their invite or knock down, broken rooms
    /// included (the server must be running)
    Leave {
        room_id: OwnedRoomId,
        user_id: OwnedUserId,
        /// What the room is told
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Delete a room here: end its invites and knocks of users of other servers, take our users
    /// out, tell the others, then free the space (the server must be running)
    Delete {
        room_id: OwnedRoomId,
        /// What the room is told
        #[arg(long)]
        reason: Option<String>,
        /// How long to wait for other servers, at most 60s. What they have not taken by then stays
        /// queued
        #[arg(long, default_value = "10s", value_parser = duration)]
        deadline: Duration,
        #[command(flatten)]
        report: Report,
    },
    /// Say why an event is in its room or not: its verdict, the checks, and how the state before it
    /// was resolved (also beside the running server)
    Explain {
        #[command(flatten)]
        at: At,
        room_id: OwnedRoomId,
        event_id: OwnedEventId,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Check that everything in the database can be read and fits together (the server must be
    /// stopped)
    Verify(At),
    /// Delete what purged rooms have left, and give back the space (the server must be stopped)
    Collect(At),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let outcome = dispatch(Cli::parse().command, &mut io::stdout().lock());
    outcome.unwrap_or_else(|failure| {
        eprintln!("{failure}");
        ExitCode::from(failure.exit_code())
    })
}

fn dispatch(command: Command, out: &mut impl Write) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(at) => {
            malloc::settle();
            let config = config::load(&at.config)?;
            logging::start(&config.log);
            actix_web::rt::System::new().block_on(app::serve(config))?;
        }
        Command::Health(at) => {
            print(out, &health::check(&config::load(&at.config)?)?)?;
        }
        Command::Config(ConfigCommand::Example) => {
            print(out, &config::example())?;
        }
        Command::Config(ConfigCommand::Check(at)) => {
            app_services::load(&config::load(&at.config)?)?;
            print(out, &format!("{}: ok\n", at.config.display()))?;
        }
        Command::User(UserCommand::Create { at, name, admin, password_stdin }) => {
            let config = config::load(&at.config)?;
            let password = user::password(password_stdin)?;
            print(out, &user::create(&config, &name, &password, admin)?)?;
        }
        Command::User(UserCommand::Deactivate { user_id, erase, report }) => {
            let config = config::load(&report.at.config)?;
            print(out, &operate::deactivate(&config, &user_id, erase, report.json)?)?;
        }
        Command::User(UserCommand::Departure { user_id, report: Report { at, json } }) => {
            let config = config::load(&at.config)?;
            print(out, &operate::departure(&config, &user_id, json)?)?;
        }
        Command::RegistrationToken(TokenCommand::Create { token, uses, expires_in, report }) => {
            let config = config::load(&report.at.config)?;
            let made = tokens::create(&config, token.as_deref(), uses, expires_in, report.json)?;
            print(out, &made)?;
        }
        Command::RegistrationToken(TokenCommand::List(Report { at, json })) => {
            print(out, &tokens::list(&config::load(&at.config)?, json)?)?;
        }
        Command::RegistrationToken(TokenCommand::Delete { token, at }) => {
            print(out, &tokens::delete(&config::load(&at.config)?, &token)?)?;
        }
        Command::Departures {
            command: Some(DeparturesCommand::Abandon { user_id, room_id, at }),
            ..
        } => {
            let config = config::load(&at.config)?;
            print(out, &operate::abandon(&config, &user_id, &room_id)?)?;
        }
        Command::Departures { report: Report { at, json }, command: None } => {
            let config = config::load(&at.config)?;
            print(out, &reports::departures(&config, json)?)?;
        }
        Command::Invites { command: Some(InvitesCommand::Check(Report { at, json })), .. } => {
            operate::check_invites(&config::load(&at.config)?, json, out)?;
        }
        Command::Invites {
            command:
                Some(InvitesCommand::Triage {
                    user,
                    inviter,
                    server,
                    room,
                    older_than,
                    newer_than,
                    reject,
                    silent,
                    report,
                }),
            ..
        } => {
            let config = config::load(&report.at.config)?;
            let ms = |age: Duration| age.as_millis().try_into().unwrap_or(u64::MAX);
            let (min_age_ms, max_age_ms) = (older_than.map(ms), newer_than.map(ms));
            let filter = TriageFilter { user, inviter, server, room, min_age_ms, max_age_ms };
            let mode = match (reject, silent) {
                (true, _) => TriageMode::Normal,
                (_, true) => TriageMode::Silent,
                _ => TriageMode::DryRun,
            };
            print(out, &operate::triage(&config, &filter, mode, report.json)?)?;
        }
        Command::Invites { report: Report { at, json }, command: None } => {
            let config = config::load(&at.config)?;
            print(out, &reports::invites(&config, json)?)?;
        }
        Command::Reports(Report { at, json }) => {
            let config = config::load(&at.config)?;
            print(out, &reports::content(&config, json)?)?;
        }
        Command::Timeline { room_id, user_id, report: Report { at, json } } => {
            let config = config::load(&at.config)?;
            print(out, &reports::timeline(&config, room_id, user_id, json)?)?;
        }
        Command::Signatures { report: Report { at, json }, purpose, event, peer } => {
            let config = config::load(&at.config)?;
            let query = SignatureQuery { purpose, event_id: event, peer, ..Default::default() };
            print(out, &reports::signatures(&config, query, json)?)?;
        }
        Command::Room(RoomCommand::Leave { room_id, user_id, reason, at }) => {
            let config = config::load(&at.config)?;
            print(out, &operate::leave(&config, &room_id, &user_id, reason)?)?;
        }
        Command::Room(RoomCommand::Delete { room_id, reason, deadline, report }) => {
            let config = config::load(&report.at.config)?;
            let Report { json, .. } = report;
            print(out, &operate::delete_room(&config, &room_id, reason, deadline, json)?)?;
        }
        Command::Room(RoomCommand::Explain { at, room_id, event_id, json }) => {
            let config = config::load(&at.config)?;
            print(out, &room::explain_event(&config, &room_id, &event_id, json)?)?;
        }
        Command::Store(StoreCommand::Verify(at)) => {
            let config = config::load(&at.config)?;
            let (text, clean) = store::verify(&config)?;
            print(out, &text)?;
            return Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Store(StoreCommand::Collect(at)) => {
            let config = config::load(&at.config)?;
            print(out, &store::collect(&config)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    config::duration(text).ok_or("a whole number with its unit (ms, s, m, h, d), like 10s")
}

fn print(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// The database, which must be there already.
fn existing(config: &Config) -> Result<PathBuf, Failure> {
    let path = database(&config.store.path);
    if !path.is_dir() {
        return Err(Failure::NoStore { path });
    }
    Ok(path)
}

/// Opens a database that must be there already, for writing.
fn open_existing(config: &Config) -> Result<Store, Failure> {
    Ok(Store::open(&existing(config)?)?)
}
