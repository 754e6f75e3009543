//! What an error of Redis means for the caller and for the connection: one table. Called by all that
//! talk to a server.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

/// An error, judged.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) error: StoreError,
    pub(super) weight: Weight,
    /// The connection must not be used again: it is broken, or leads to a server that is not the master (any more).
    pub(super) replaces_connection: bool,
}

/// What an error says about the server, for its breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Nothing bad: it answered, and what is wrong is in what was asked or what is stored.
    Answer,
    /// Nothing: another server is to answer, and counts.
    Elsewhere,
    /// Nothing for a while: keys are on their way to another node.
    Moving,
    /// Its memory is full.
    Full,
    /// It does not do its work.
    Failure,
}

/// An answer that did not come, and where it may be had instead.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    pub(super) weight: Weight,
    pub(super) redirection: Option<Redirection>,
}

/// What a node of a cluster says of a slot that it does not answer for. The request did not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirection {
    /// The slot is another node's; `HOST:PORT` as the node wrote it.
    Moved { slot: u16, to: String },
    /// The slot is moving to another node, and these keys are there already.
    Ask { to: String },
}

impl Failure {
    /// A server's error and what it was judged to be.
    pub(super) fn of(judged: Judged, of_server: &RedisError) -> Self {
        let redirection = of_server.redirect_node().map(|(to, slot)| {
            if of_server.kind() == ErrorKind::Server(ServerErrorKind::Ask) {
                Redirection::Ask { to: to.to_owned() }
            } else {
                Redirection::Moved { slot, to: to.to_owned() }
            }
        });
        Self { error: judged.error, weight: judged.weight, redirection }
    }

    /// Whether the connection broke, or none could be made.
    pub(super) const fn is_broken_connection(&self) -> bool {
        matches!((&self.error, self.weight), (StoreError::Unreachable(_), Weight::Failure))
    }

    /// A call that was not sent, or whose answer says nothing of the server.
    pub(super) const fn of_ours(error: StoreError) -> Self {
        Self { error, weight: Weight::Elsewhere, redirection: None }
    }

    /// No connection, or no answer in time.
    pub(super) const fn of_silence(error: StoreError) -> Self {
        Self { error, weight: Weight::Failure, redirection: None }
    }
}

/// What the code at the start of a server's error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Writes are refused for now; nothing was written.
    Refused,
    /// Refused, and by a server that we should not talk to: look for the right one.
    WrongServer,
    /// What is stored is not ours, or was broken by hand.
    Corrupt,
}

/// Code, meaning, what its breaker makes of it, and what whoever reads the log should look at.
const CODES: &[(&str, Meaning, Weight, &str)] = &[
    ("LOADING", Meaning::WrongServer, Weight::Failure, "it is loading its data set"),
    ("READONLY", Meaning::WrongServer, Weight::Failure, "it is a replica: the master is elsewhere"),
    ("MASTERDOWN", Meaning::WrongServer, Weight::Failure, "it is a replica that lost its master"),
    ("OOM", Meaning::Refused, Weight::Full, "its memory is full: raise maxmemory"),
    ("MISCONF", Meaning::Refused, Weight::Failure, "it cannot persist: look at its disk and its log"),
    (
        "NOREPLICAS",
        Meaning::Refused,
        Weight::Failure,
        "too few replicas are connected for min-replicas-to-write",
    ),
    ("BUSY", Meaning::Refused, Weight::Failure, "a script keeps it busy"),
    ("NOAUTH", Meaning::Refused, Weight::Failure, "it wants a password: put it into the store's URL"),
    ("WRONGPASS", Meaning::Refused, Weight::Failure, "the user name or password in the store's URL is wrong"),
    ("NOPERM", Meaning::Refused, Weight::Failure, FORBIDDEN),
    ("CLUSTERDOWN", Meaning::Refused, Weight::Failure, "its cluster is down"),
    // Sent whole at once: whoever hears of it has run into a script that calls another.
    ("NOSCRIPT", Meaning::Refused, Weight::Answer, "it does not know a script"),
    ("TRYAGAIN", Meaning::Refused, Weight::Moving, "a slot is being moved"),
    ("MOVED", Meaning::Refused, Weight::Elsewhere, CLUSTER_NODE),
    ("ASK", Meaning::Refused, Weight::Elsewhere, CLUSTER_NODE),
    ("CROSSSLOT", Meaning::Refused, Weight::Answer, CLUSTER_NODE),
    ("WRONGTYPE", Meaning::Corrupt, Weight::Answer, "a key of this cluster's name holds something else"),
];

/// The server says itself what is forbidden: commands, or the keys of this cluster.name.
const FORBIDDEN: &str = "its ACL forbids this user a command or these keys: all begin with cluster.name, or with it in \
                         braces (config/redis/standalone.conf shows a user that suffices)";

/// Where a cluster is spoken to, such an error is followed and not told.
const CLUSTER_NODE: &str = "it is a node of a Redis Cluster: use redis+cluster:// in the store's URL";

/// What an error without a code of its own means. A script that stopped halfway is corrupt: it would stop there again.
/// Anything else was not carried out.
fn judge_plain(error: &RedisError, code: &str, detail: &str) -> StoreError {
    if error.to_string().contains(NO_DATABASE) {
        return StoreError::Refused(format!(
            "it does not let this user into the database that the store's URL names ({detail}): allow the command \
             SELECT in its ACL, or use database 0"
        ));
    }
    if detail.starts_with("unknown command") {
        return StoreError::Refused(format!(
            "it does not know what is asked ({detail}): is this the port of a Redis 7 server or of a sentinel, as the \
             store's URL says?"
        ));
    }
    if code != "ERR" || detail.contains("script") {
        return StoreError::Corrupt(format!("{code} {detail}"));
    }
    StoreError::Refused(format!("{code} {detail}"))
}

/// What its breaker makes of an error without a code: a script that is wrong is ours, a server that has no place for
/// more clients is none.
fn weight_plain(detail: &str) -> Weight {
    if detail.starts_with("max number of clients") { Weight::Failure } else { Weight::Answer }
}

/// Why no encrypted connection came to stand, and what to do.
fn judge_connecting(error: &RedisError) -> StoreError {
    let text = error.to_string();
    let advice = if text.contains("UnknownIssuer") {
        ": nobody known vouches for its certificate; set redis.ca_file to that of the authority that signed it"
    } else if text.contains("CaUsedAsEndEntity") {
        ": it shows an authority's certificate as its own (CA:TRUE); give it one that is signed by that, and the \
         authority's to redis.ca_file"
    } else if text.contains("NotValidForName") {
        ": its certificate is for another host than the store's URL names"
    } else if text.contains("Expired") {
        ": its certificate has run out"
    } else if text.contains("InvalidContentType") || text.contains("corrupt message") {
        ": it does not speak TLS there; is this its TLS port, or is redis meant instead of rediss?"
    } else {
        ""
    };
    StoreError::Unreachable(format!("{text}{advice}"))
}

/// As the library says it.
const NO_DATABASE: &str = "refused to switch database";

/// Judges an error of a call.
pub(super) fn judge(error: &RedisError) -> Judged {
    let detail = error.detail().unwrap_or_default();
    if let Some(code) = error.code() {
        // An error inside a script arrives as ERR with the original code in its text.
        let row = CODES.iter().find(|(known, ..)| *known == code || detail.starts_with(known));
        return match row {
            Some((code, meaning, weight, advice)) => Judged {
                weight: *weight,
                error: match meaning {
                    Meaning::Refused if *advice == FORBIDDEN => {
                        StoreError::Refused(format!("{code}: {advice}; it says: {detail}"))
                    }
                    Meaning::Refused | Meaning::WrongServer => {
                        StoreError::Refused(format!("{code}: {advice}"))
                    }
                    Meaning::Corrupt => StoreError::Corrupt(format!("{code}: {advice} ({detail})")),
                },
                replaces_connection: *meaning == Meaning::WrongServer,
            },
            None => Judged { weight: weight_plain(detail), ..answered(judge_plain(error, code, detail)) },
        };
    }
    match error.kind() {
        _ if error.is_timeout() => {
            Judged { error: StoreError::Timeout, weight: Weight::Failure, replaces_connection: false }
        }
        ErrorKind::AuthenticationFailed => Judged {
            weight: Weight::Failure,
            error: StoreError::Refused("the user name or password in the store's URL is wrong".into()),
            replaces_connection: true,
        },
        ErrorKind::UnexpectedReturnType => answered(StoreError::Corrupt(error.to_string())),
        // Whatever came cannot be told apart from what follows it.
        ErrorKind::Parse => Judged {
            weight: Weight::Failure,
            error: StoreError::Unreachable(format!(
                "what answers there does not speak as Redis does ({error}): is it its TLS port (rediss), or another \
                 server's?"
            )),
            replaces_connection: true,
        },
        _ => Judged { error: judge_connecting(error), weight: Weight::Failure, replaces_connection: true },
    }
}

/// Whether a script is unknown to the server, and must be sent whole.
pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn answered(error: StoreError) -> Judged {
    Judged { error, weight: Weight::Answer, replaces_connection: false }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn server_error(line: &str) -> RedisError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap().extract_error() {
            Err(error) => error,
            Ok(value) => panic!("{value:?}"),
        }
    }

    /// Error line of a server, what the caller hears, what its breaker counts, whether the connection is replaced.
    const LINES: &[(&str, &str, Weight, bool)] = &[
        ("LOADING Redis is loading the dataset in memory", "refused", Weight::Failure, true),
        ("READONLY You can't write against a read only replica.", "refused", Weight::Failure, true),
        (
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "refused",
            Weight::Failure,
            true,
        ),
        ("OOM command not allowed when used memory > 'maxmemory'.", "refused", Weight::Full, false),
        (
            "MISCONF Redis is configured to save RDB snapshots, but it's unable to persist",
            "refused",
            Weight::Failure,
            false,
        ),
        ("NOREPLICAS Not enough good replicas to write.", "refused", Weight::Failure, false),
        (
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL",
            "refused",
            Weight::Failure,
            false,
        ),
        ("NOAUTH Authentication required.", "refused", Weight::Failure, false),
        ("WRONGPASS invalid username-password pair or user is disabled.", "refused", Weight::Failure, false),
        (
            "NOPERM this user has no permissions to run the 'evalsha' command",
            "refused",
            Weight::Failure,
            false,
        ),
        ("CLUSTERDOWN The cluster is down", "refused", Weight::Failure, false),
        ("NOSCRIPT No matching script. Please use EVAL.", "refused", Weight::Answer, false),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "refused", Weight::Moving, false),
        ("MOVED 3999 127.0.0.1:6381", "refused", Weight::Elsewhere, false),
        ("ASK 3999 127.0.0.1:6381", "refused", Weight::Elsewhere, false),
        ("CROSSSLOT Keys in request don't hash to the same slot", "refused", Weight::Answer, false),
        (
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "corrupt",
            Weight::Answer,
            false,
        ),
        (
            "ERR user_script:12: attempt to compare nil with number script: 1a2b",
            "corrupt",
            Weight::Answer,
            false,
        ),
        ("ERR unknown command 'EVALSHA'", "refused", Weight::Answer, false),
        ("ERR max number of clients reached", "refused", Weight::Failure, false),
    ];

    fn heard(error: &StoreError) -> &'static str {
        match error {
            StoreError::Timeout => "timeout",
            StoreError::Unreachable(_) => "unreachable",
            StoreError::Refused(_) => "refused",
            StoreError::Corrupt(_) => "corrupt",
            StoreError::HeldBack { .. } => "held back",
            StoreError::Crowded => "crowded",
        }
    }

    #[test]
    fn every_code_has_its_meaning() {
        for (line, expected, weight, replaces) in LINES {
            let judged = judge(&server_error(line));
            let found = (heard(&judged.error), judged.weight, judged.replaces_connection);
            assert_eq!(found, (*expected, *weight, *replaces), "{line}");
        }
        for (code, ..) in CODES {
            assert!(LINES.iter().any(|(line, ..)| line.starts_with(code)), "{code} has no test");
        }
    }

    #[test]
    fn what_an_operator_got_wrong_is_told_with_what_to_do() {
        let select = (
            ErrorKind::Server(ServerErrorKind::ResponseError),
            "Redis server refused to switch database",
            "this user has no permissions to run the 'select' command".to_owned(),
        );
        let untrusted = io::Error::other("invalid peer certificate: UnknownIssuer");
        for (error, advice) in [
            (RedisError::from(select), "allow the command SELECT in its ACL"),
            (RedisError::from(untrusted), "set redis.ca_file"),
            (server_error("NOPERM No permissions to access a key"), "begin with cluster.name"),
            (server_error("NOPERM No permissions to access a key"), "No permissions to access a key"),
            (server_error("ERR unknown command 'SENTINEL'"), "or of a sentinel"),
        ] {
            let told = judge(&error).error.to_string();
            assert!(told.contains(advice) && !told.contains("holds"), "{told}");
        }
    }

    #[test]
    fn a_connection_that_failed_is_replaced_and_a_slow_one_is_not_yet() {
        let io = |kind: io::ErrorKind| judge(&RedisError::from(io::Error::from(kind)));
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::NotFound,
        ] {
            let judged = io(kind);
            assert_eq!((heard(&judged.error), judged.replaces_connection), ("unreachable", true), "{kind}");
            assert_eq!(judged.weight, Weight::Failure, "{kind}");
        }
        let judged = io(io::ErrorKind::TimedOut);
        assert_eq!((heard(&judged.error), judged.replaces_connection), ("timeout", false));
        assert_eq!(judged.weight, Weight::Failure);
    }

    #[test]
    fn a_wrong_password_and_a_wrong_answer_are_not_called_unreachable() {
        let judged = judge(&RedisError::from((ErrorKind::AuthenticationFailed, "no")));
        assert_eq!((heard(&judged.error), judged.replaces_connection), ("refused", true));
        assert_eq!(judged.weight, Weight::Failure);
        let judged = judge(&RedisError::from((ErrorKind::UnexpectedReturnType, "no")));
        assert_eq!((heard(&judged.error), judged.replaces_connection), ("corrupt", false));
        assert_eq!(judged.weight, Weight::Answer);
    }

    #[test]
    fn a_redirection_is_read_and_nothing_else_is_one() {
        let found = |line: &str| {
            let error = server_error(line);
            Failure::of(judge(&error), &error).redirection
        };
        let to = "127.0.0.1:6381".to_owned();
        assert_eq!(
            found("MOVED 3999 127.0.0.1:6381"),
            Some(Redirection::Moved { slot: 3999, to: to.clone() })
        );
        assert_eq!(found("ASK 3999 127.0.0.1:6381"), Some(Redirection::Ask { to }));
        for line in ["MOVED", "ERR MOVED 3999 127.0.0.1:6381", "TRYAGAIN Multiple keys request"] {
            assert_eq!(found(line), None, "{line}");
        }
    }

    #[test]
    fn an_unknown_script_is_told_apart() {
        assert!(is_unknown_script(&server_error("NOSCRIPT No matching script. Please use EVAL.")));
        assert!(!is_unknown_script(&server_error("NOAUTH Authentication required.")));
    }
}
