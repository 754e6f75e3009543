//! The rules, once: what each alarm looks at, where its limit lies, how long it is believed, and what to do. Pure; `watch`
//! plays them every second.

use std::sync::Arc;

use super::alarm::Severity;
use super::baseline::Baseline;
use super::finding::Finding;
use super::reading::{Figures, Reading, Readings};
use super::switch::Level;
use super::totals::Totals;
use super::{Limits, leak, names};

/// Requests in the window before their failures are a share worth telling.
const ENDED_MIN: u64 = 20;
/// And failures among them: of a few requests one or two are a large share.
const FAILED_MIN: u64 = 5;
/// Values above a limit before their percentile is believed: one slow answer is no slow server.
const SLOW_ACKS_MIN: u64 = 5;
const SLOW_COMMITS_MIN: u64 = 2;
/// Values in the window before a percentile teaches a baseline.
const LEARNT_FROM_MIN: u64 = 20;
/// For how long a node that vanished, or a lease that was lost, is told.
const TOLD_FOR_MS: u64 = 60_000;
/// One link in so many may be closed for reading too slowly within the window, whatever the limit.
const SLOW_ONE_IN: u64 = 1_000;

/// A rule.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    /// Of its value and its limit, unless it finds something else.
    pub(super) unit: &'static str,
    /// Whether one bad second is enough.
    pub(super) at_once: bool,
    /// Looks at a second.
    pub(super) judge: fn(&Sight<'_>) -> Finding,
    /// What it has found, for people.
    pub(super) text: fn(&Finding) -> String,
    /// What to do about it.
    pub(super) advice: &'static str,
}

/// What a rule sees.
pub(super) struct Sight<'a> {
    pub(super) limits: &'a Limits,
    pub(super) now: &'a Reading,
    pub(super) readings: &'a Readings,
    pub(super) figures: &'a Figures,
    pub(super) baselines: &'a Baselines,
}

/// What is usual.
#[derive(Debug, Default)]
pub(super) struct Baselines {
    pub(super) requests: Baseline,
    pub(super) applied: Baseline,
}

impl Baselines {
    /// One second more; of which alarm it teaches nothing.
    pub(super) fn learn(&mut self, figures: &Figures, now_ms: u64, is_unusual: impl Fn(&str) -> bool) {
        self.requests.learn(figures.requests, is_unusual(names::TRAFFIC), now_ms);
        if let Some(p99) =
            figures.applied.quantile(0.99).filter(|_| figures.applied.count() >= LEARNT_FROM_MIN)
        {
            self.applied.learn(p99, is_unusual(names::LATENCY), now_ms);
        }
    }
}

/// All of them, in the order in which they are told.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: names::ERROR_RATE,
        severity: Severity::Critical,
        unit: "share",
        at_once: false,
        judge: error_rate,
        text: |found| {
            let (share, limit) = (found.value * 100.0, found.limit * 100.0);
            format!(
                "{share:.1} % of requests failed by the server's fault in the last 10 s; {limit:.0} % is the limit"
            )
        },
        advice: "see which outcomes hearth_commands_total and hearth_service_requests_total count; if it is store_unavailable look \
                 at the store, if it is overloaded add nodes, if it is internal look at the log's errors",
    },
    Rule {
        name: names::LATENCY,
        severity: Severity::Warning,
        unit: "seconds",
        at_once: false,
        judge: latency,
        text: |found| {
            format!(
                "acks take {:.3} s (p99 of the last 10 s); {:.3} s is the limit, {}",
                found.value, found.limit, found.whom
            )
        },
        advice: "look at the node's CPU and at its neighbours on the machine; if one node alone is slow drain it, if all are add nodes",
    },
    Rule {
        name: names::TRAFFIC,
        severity: Severity::Warning,
        unit: "requests/s",
        at_once: false,
        judge: traffic,
        text: |found| {
            format!(
                "{:.0} requests a second come in; {} are usual, and {:.0} is the limit",
                found.value, found.whom, found.limit
            )
        },
        advice: "if players are welcome see that CPU and the store keep up, and add nodes; if not look at hearth_logins_total and at \
                 the limits per address",
    },
    Rule {
        name: names::STORE_SLOW,
        severity: Severity::Warning,
        unit: "seconds",
        at_once: false,
        judge: store_slow,
        text: |found| {
            format!(
                "commits take {:.2} s (p99 of the last 10 s, or what waits now); {:.2} s is the limit",
                found.value, found.limit
            )
        },
        advice: "look at the disk and the CPU of the store's host, at what else it serves, and at the network between",
    },
    Rule {
        name: names::STORE_DOWN,
        severity: Severity::Critical,
        // Or shards.
        unit: "servers",
        at_once: false,
        judge: store_down,
        text: |found| format!("the store does not take what is changed: {}", found.whom),
        advice: "bring the store back: players are served from memory meanwhile, and what they are acked is provisional; stop no node",
    },
    Rule {
        name: names::STORE_LOST,
        severity: Severity::Critical,
        unit: "shards",
        at_once: true,
        // For how long it is told is `home`'s to say.
        judge: |sight| Finding::of(sight.now.store_lost_shards as f64, 0.0),
        text: |found| {
            let shards = many(found.value, "shard was", "shards were");
            format!(
                "the store has lost what it had acknowledged within the last hour: {shards} written again from memory so far"
            )
        },
        advice: "find out why before it happens again (FLUSHALL, a restart without an append-only file, a failover to a replica that \
                 was behind); players who are here lose nothing, but what the store alone had is gone as far as it lost it: messages kept for \
                 players who are away and what was remembered of them, blobs, counters, who holds a lock",
    },
    Rule {
        name: names::HOT_ROOM,
        severity: Severity::Warning,
        unit: "share",
        at_once: false,
        judge: hot_room,
        text: |found| {
            let (share, limit) = (found.value * 100.0, found.limit * 100.0);
            format!("the room {} makes {share:.0} % of all pushes; {limit:.0} % is the limit", found.whom)
        },
        advice: "see who talks there; let game services gather what they say, split the room, or lower limits.room_send_per_s",
    },
    Rule {
        name: names::LOGIN_FLOOD,
        severity: Severity::Warning,
        unit: "logins/s",
        at_once: false,
        judge: |sight| {
            let Figures { logins_refused, flooding, .. } = sight.figures;
            Finding::of(*logins_refused, sight.limits.logins_refused_per_s).of_whom(shares(flooding))
        },
        text: |found| {
            format!(
                "{:.1} logins and connections a second are refused for being too many from one address; {:.1} is the limit; {}",
                found.value, found.limit, found.whom
            )
        },
        advice: "if a proxy or a NAT stands before many players raise limits.logins_per_s and limits.connects_per_s; else shut the \
                 addresses out before Hearth",
    },
    Rule {
        name: names::SLOW_READERS,
        severity: Severity::Warning,
        unit: "links",
        at_once: false,
        judge: |sight| {
            let limit = sight.limits.slow_readers.max(sight.now.links / SLOW_ONE_IN);
            Finding::of(sight.figures.slow as f64, limit as f64)
        },
        text: |found| {
            format!(
                "{} closed for reading too slowly in the last 10 s; {:.0} is the limit",
                many(found.value, "link was", "links were"),
                found.limit
            )
        },
        advice: "look at the network to clients and at slow_consumers; if all of them are in one room it says more than they can read",
    },
    Rule {
        name: names::SESSION_LEAK,
        severity: Severity::Warning,
        // Or descriptors.
        unit: "sessions",
        at_once: false,
        judge: leak::session_leak,
        text: |found| {
            format!(
                "{:.0} {} more than before, beside those of players who came; {:.0} is the limit",
                found.value, found.whom, found.limit
            )
        },
        advice: "sessions: see which service makes them and does not end them, and session.login_policy; descriptors: see who connects \
                 and never logs in",
    },
    Rule {
        name: names::NODE_LOST,
        severity: Severity::Critical,
        unit: "nodes",
        at_once: true,
        judge: node_lost,
        text: |found| format!("gone without a word within the last minute: {}", found.whom),
        advice: "look at that node's process, its log and its machine; its shards go to the other nodes by themselves",
    },
    Rule {
        name: names::LEASE_LOST,
        severity: Severity::Critical,
        unit: "shards",
        at_once: true,
        judge: lease_lost,
        text: |found| {
            let shards = many(found.value, "shard has lost its", "shards have lost their");
            let whose = if found.value == 1.0 { "its" } else { "their" };
            format!("{shards} lease within the last minute: {whose} players were paused or moved")
        },
        advice: "see whether this node reaches the store, and whether it stood still (hearth_runtime_stalls_total)",
    },
    Rule {
        name: names::MAIL_LAG,
        severity: Severity::Warning,
        unit: "seconds",
        at_once: false,
        judge: mail_lag,
        text: |found| found.whom.clone(),
        advice: "look at the network between nodes, at peer_addr and peer_public_addr, and at the slower node's CPU",
    },
    Rule {
        name: names::BAD_CLIENT,
        severity: Severity::Warning,
        unit: "clients/s",
        at_once: false,
        judge: |sight| {
            let Figures { bad_clients, misbehaving, .. } = sight.figures;
            Finding::of(*bad_clients, sight.limits.bad_clients_per_s).of_whom(shares(misbehaving))
        },
        text: |found| {
            format!(
                "{:.1} clients a second break the protocol or show what is no good, limit {:.1}; {}",
                found.value, found.limit, found.whom
            )
        },
        advice: "see the reasons in hearth_handshake_failures_total (upgrade: not even HTTP) and the codes in hearth_closes_total: 4500 is a wrong token (was a key changed?), 4501 another protocol (a bad release \
                 of the game?); if it is nobody's release shut the addresses out before Hearth",
    },
];

/// So many of what has a word for one, and one for more.
fn many(count: f64, one: &str, more: &str) -> String {
    format!("{count:.0} {}", if count == 1.0 { one } else { more })
}

/// Who it is, as far as a few can be named.
fn shares(addresses: &[(Arc<str>, f64)]) -> String {
    if addresses.is_empty() {
        return "no address makes a share of them that is worth naming".to_owned();
    }
    let share = |(address, share): &(Arc<str>, f64)| format!("{address}: {:.0} % of them", share * 100.0);
    addresses.iter().map(share).collect::<Vec<_>>().join(", ")
}

fn error_rate(sight: &Sight<'_>) -> Finding {
    let Figures { ended, failed, .. } = *sight.figures;
    // What failed before it was counted as a request counts as one.
    let ended = ended.max(failed);
    if ended < ENDED_MIN || failed < FAILED_MIN {
        return Finding::calm(sight.limits.error_share);
    }
    Finding::of(failed as f64 / ended as f64, sight.limits.error_share)
}

/// The fixed limit, or what is off its own baseline, whichever is lower.
fn latency(sight: &Sight<'_>) -> Finding {
    let (limits, applied) = (sight.limits, &sight.figures.applied);
    let usual = sight.baselines.applied.value();
    let off =
        usual.map_or(limits.latency_s, |usual| (usual * limits.latency_factor).max(limits.latency_floor_s));
    let limit = off.min(limits.latency_s);
    let whom = usual.map_or_else(
        || "while it is not yet known what is usual".to_owned(),
        |usual| format!("now that {usual:.3} s is usual"),
    );
    match applied.quantile(0.99) {
        Some(p99) if applied.above(limit) >= SLOW_ACKS_MIN || p99 <= limit => Finding::of(p99, limit),
        _ => Finding::calm(limit),
    }
    .of_whom(whom)
}

fn traffic(sight: &Sight<'_>) -> Finding {
    let limits = sight.limits;
    let Some(usual) = sight.baselines.requests.value() else {
        return Finding::calm(limits.traffic_floor_per_s);
    };
    let limit = (usual * limits.traffic_factor).max(limits.traffic_floor_per_s);
    Finding::of(sight.figures.requests, limit).of_whom(format!("{usual:.0}"))
}

fn store_slow(sight: &Sight<'_>) -> Finding {
    let (limits, commit) = (sight.limits, &sight.figures.commit);
    // One that is away is told as that.
    if store_down(sight).level == Level::Bad {
        return Finding::calm(limits.commit_s);
    }
    let p99 = commit
        .quantile(0.99)
        .filter(|p99| *p99 <= limits.commit_s || commit.above(limits.commit_s) >= SLOW_COMMITS_MIN);
    // A change may wait for its turn without anything being slow.
    let waits = sight.now.totals.flush_lag - limits.flush_interval_s;
    Finding::of(p99.unwrap_or(0.0).max(waits).max(0.0), limits.commit_s)
}

/// Breakers that are open, or try again, and shards whose store takes nothing.
fn store_down(sight: &Sight<'_>) -> Finding {
    let totals = &sight.now.totals;
    let away: Vec<&str> = totals
        .breakers
        .iter()
        .filter(|(_, state)| *state >= 2)
        .map(|(endpoint, _)| endpoint.as_str())
        .collect();
    if away.is_empty() {
        let shards = totals.held_back as f64;
        Finding::of(shards, 0.0).in_unit("shards").of_whom(many(
            shards,
            "shard is held back",
            "shards are held back",
        ))
    } else {
        Finding::of(away.len() as f64, 0.0).in_unit("servers").of_whom(away.join(", "))
    }
}

fn hot_room(sight: &Sight<'_>) -> Finding {
    let limits = sight.limits;
    match sight.figures.rooms.first() {
        Some((room, rate)) if *rate >= limits.hot_room_floor_per_s => {
            Finding::of(sight.figures.hottest_share(), limits.hot_room_share).of_whom(&**room)
        }
        _ => Finding::calm(limits.hot_room_share),
    }
}

fn node_lost(sight: &Sight<'_>) -> Finding {
    let mut names: Vec<&str> = Vec::new();
    for name in sight.readings.last(TOLD_FOR_MS).flat_map(|reading| &reading.vanished) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    Finding::of(names.len() as f64, 0.0).of_whom(names.join(", "))
}

fn lease_lost(sight: &Sight<'_>) -> Finding {
    let oldest = sight.readings.last(TOLD_FOR_MS).last();
    let more = |of: fn(&Totals) -> u64| {
        of(&sight.now.totals).saturating_sub(oldest.map_or(0, |oldest| of(&oldest.totals)))
    };
    // A shard whose lease runs out is lost to another node as a rule, and is one shard.
    Finding::of(more(|totals| totals.leases_run_out).max(more(|totals| totals.shards_lost)) as f64, 0.0)
}

fn mail_lag(sight: &Sight<'_>) -> Finding {
    let (late, limit) = (sight.now.mail_lag_ms as f64 / 1_000.0, sight.limits.mail_lag_s);
    let found = Finding::of(late, limit);
    let told = format!("letters to other nodes are {late:.1} s late; {limit:.1} s is the limit");
    match sight.now.totals.unreached {
        0 => found.of_whom(told),
        nodes if found.level == Level::Bad => {
            found.of_whom(format!("{told}; live nodes to which there is no link at all: {nodes}"))
        }
        // How late letters to them are nobody knows: they wait here.
        nodes => Finding::of(nodes as f64, 0.0)
            .in_unit("nodes")
            .of_whom(format!("live nodes to which there is no link: {nodes}; letters to them wait")),
    }
}
