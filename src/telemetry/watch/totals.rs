//! The handful of rows of the metrics' text that the watch looks at, added up over their labels. A metric's handle can
//! be written to and not read, so what is read here is what Prometheus would be told. Pure.

use protocol::ErrorCode;

use super::spread::Spread;
use crate::telemetry::metrics as table;

/// The op under which what became of a request later is counted once more.
const LATER: &str = "later";
/// Closes of links whose client does not keep to the protocol, or shows what is no good: RFC 6455 violated, not UTF-8,
/// too big, bad token, not our protocol, too fast for too long.
const BAD_CLOSES: &[u16] = &[1002, 1007, 1009, 4500, 4501, 4506];
/// Handshakes that no client of ours would make.
const BAD_HANDSHAKES: &[&str] = &["upgrade", "tls"];
/// Calls that last as long as their caller likes, and probes.
const UNTIMED: &[&str] = &["/v1/events", "/v1/locks/{name}", "/healthz", "/readyz", "/metrics"];

/// Whether a link that was closed under this code counts as a client's who does not keep to the protocol, or shows what is no
/// good.
#[must_use]
pub fn is_bad_close(code: u16) -> bool {
    BAD_CLOSES.contains(&code)
}

/// The same of a handshake that came to nothing for this reason.
#[must_use]
pub fn is_bad_handshake(reason: &str) -> bool {
    BAD_HANDSHAKES.contains(&reason)
}

/// What has been counted since the process began, and what gauges say now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Totals {
    /// Commands that were answered, however.
    pub acks: u64,
    /// Commands, logins, resumes and calls of services that failed by our fault.
    pub failed: u64,
    /// Logins, however they ended.
    pub logins: u64,
    /// Logins that were refused for being too many, and connections that were.
    pub logins_refused: u64,
    /// Resumes, however they ended.
    pub resumes: u64,
    /// Requests that were refused for being too fast, or because there was too much to do.
    pub refused: u64,
    /// Calls of services.
    pub service_calls: u64,
    /// Frames put into outboxes.
    pub pushes: u64,
    /// Links closed for reading too slowly.
    pub slow: u64,
    /// Closes and handshakes of clients that do not keep to the protocol.
    pub bad_clients: u64,
    /// Nodes that vanished.
    pub vanished: u64,
    /// Shards whose lease has run out; most of these are lost next.
    pub leases_run_out: u64,
    /// Shards that others were granted.
    pub shards_lost: u64,
    /// The breakers by the server that they stand before: 0 closed to 3 open.
    pub breakers: Vec<(String, u8)>,
    /// Shards whose store takes no changes.
    pub held_back: u64,
    /// For how long the oldest change waits, in seconds.
    pub flush_lag: f64,
    /// Live nodes without a link.
    pub unreached: u64,
    /// Clients that are carried to other nodes.
    pub relayed: u64,
    /// From a command to its ack, in seconds, as those below.
    pub applied: Spread,
    /// From a command to its durable ack.
    pub durable: Spread,
    /// How long commits take.
    pub commit: Spread,
    /// How long calls of services take.
    pub service: Spread,
}

impl Totals {
    /// Reads the text of a scrape; lines that are not looked at cost a comparison.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut totals = Self::default();
        for line in text.lines() {
            if let Some(row) = Row::of(line) {
                totals.take(&row);
            }
        }
        totals
    }

    fn take(&mut self, row: &Row<'_>) {
        let name = row.name;
        let is = |known: &str| name == known;
        if let Some(name) = name.strip_suffix("_bucket") {
            self.take_step(name, row);
        } else if is(table::COMMANDS.as_str()) {
            let is_later = row.label("op") == Some(LATER);
            self.acks += if is_later { 0 } else { row.count() };
            self.take_outcome(row);
        } else if is(table::LOGINS.as_str()) {
            self.logins += row.count();
            self.logins_refused += row.count_if("outcome", &["rate_limited"]);
            // Those that are rate limited are among the refused as such.
            self.take_outcome(row);
        } else if is(table::RESUMES.as_str()) {
            self.resumes += row.count();
            self.take_outcome(row);
        } else if is(table::HANDSHAKE_FAILURES.as_str()) {
            self.logins_refused += row.count_if("reason", &["connect_rate"]);
            self.bad_clients += row.count_if("reason", BAD_HANDSHAKES);
        } else if is(table::CLOSES.as_str()) {
            let code = row.label("code").and_then(|code| code.parse().ok());
            self.bad_clients += if code.is_some_and(is_bad_close) { row.count() } else { 0 };
        } else if is(table::RATE_LIMITED.as_str()) {
            self.refused += row.count();
        } else if is(table::SERVICE_REQUESTS.as_str()) {
            self.service_calls += row.count();
        } else if is(table::SERVICE_FAILURES.as_str()) {
            // A status does not say whose fault it was: what is refused on purpose is a 5xx, too.
            self.failed += row.count();
        } else if is(table::FANOUT_DELIVERIES.as_str()) || is(table::ROOM_DELIVERIES.as_str()) {
            self.pushes += row.count();
        } else if is(table::SLOW_CLOSES.as_str()) {
            self.slow += row.count();
        } else if is(table::MEMBERS_GONE.as_str()) {
            self.vanished += row.count_if("how", &["vanished"]);
        } else if is(table::LEASES_RUN_OUT.as_str()) {
            self.leases_run_out += row.count();
        } else if is(table::SHARDS_LOST.as_str()) {
            self.shards_lost += row.count();
        } else if is(table::STORE_BREAKER_STATE.as_str()) {
            let endpoint = row.label("endpoint").unwrap_or_default().to_owned();
            self.breakers.push((endpoint, u8::try_from(row.count()).unwrap_or(u8::MAX)));
        } else if is(table::SHARDS_HELD_BACK.as_str()) {
            self.held_back = row.count();
        } else if is(table::FLUSH_LAG_SECONDS.as_str()) {
            self.flush_lag = row.value;
        } else if is(table::PEERS_UNREACHED.as_str()) {
            self.unreached = row.count();
        } else if is(table::RELAYED_OPEN.as_str()) {
            self.relayed = row.count();
        }
    }

    fn take_outcome(&mut self, row: &Row<'_>) {
        let has_failed = row.label("outcome").is_some_and(is_our_fault);
        self.failed += if has_failed { row.count() } else { 0 };
        self.refused += row.count_if("outcome", &["overloaded"]);
    }

    fn take_step(&mut self, name: &str, row: &Row<'_>) {
        let spread = if name == table::COMMIT_SECONDS.as_str() {
            &mut self.commit
        } else if name == table::ACK_SECONDS.as_str() {
            if row.label("level") == Some("durable") { &mut self.durable } else { &mut self.applied }
        } else if name == table::SERVICE_REQUEST_SECONDS.as_str()
            && !row.label("route").is_some_and(|route| UNTIMED.contains(&route))
        {
            &mut self.service
        } else {
            return;
        };
        if let Some(step) = row.label("le").and_then(|le| le.parse::<f64>().ok()) {
            spread.add(step, row.count());
        }
    }
}

/// Whether an outcome of requests is no fault of who asks.
fn is_our_fault(outcome: &str) -> bool {
    ErrorCode::ALL.iter().any(|code| code.is_ours() && code.name() == outcome)
}

/// One sample of the text.
struct Row<'a> {
    name: &'a str,
    /// Without the braces; empty if there are none.
    labels: &'a str,
    value: f64,
}

impl<'a> Row<'a> {
    fn of(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        Some(Self { name, labels, value: value.parse().ok()? })
    }

    /// The value of a label. None of those that are looked at has a quote in its value.
    fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = after.split_once('"')?;
            if label == name {
                return Some(value);
            }
            rest = after.strip_prefix(',')?;
        }
    }

    /// The value as a whole number.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and counts are whole"
    )]
    fn count(&self) -> u64 {
        self.value as u64
    }

    /// The value where a label is one of these, else 0.
    fn count_if(&self, label: &str, values: &[&str]) -> u64 {
        if self.label(label).is_some_and(|value| values.contains(&value)) { self.count() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_added_up_over_their_labels() {
        let text = r#"
# HELP hearth_commands_total Commands.
# TYPE hearth_commands_total counter
hearth_commands_total{op="state.patch",outcome="ok"} 10
hearth_commands_total{op="state.patch",outcome="internal"} 2
hearth_commands_total{op="later",outcome="store_unavailable"} 3
hearth_logins_total{outcome="ok"} 4
hearth_logins_total{outcome="rate_limited"} 5
hearth_logins_total{outcome="overloaded"} 1
hearth_resumes_total{outcome="missed"} 6
hearth_handshake_failures_total{reason="connect_rate"} 7
hearth_handshake_failures_total{reason="upgrade"} 8
hearth_handshake_failures_total{reason="gone"} 100
hearth_closes_total{code="4501"} 2
hearth_closes_total{code="1000"} 100
hearth_rate_limited_total{kind="frame"} 9
hearth_rate_limited_total{kind="login"} 5
hearth_service_requests_total{route="/v1/stats",status="200"} 20
hearth_service_requests_total{route="/v1/stats",status="500"} 1
hearth_service_requests_total{route="/readyz",status="503"} 30
hearth_service_requests_total{route="/v1/sessions",status="501"} 40
hearth_service_requests_total{route="/v1/sessions",status="503"} 50
hearth_service_failures_total{route="/v1/stats"} 1
hearth_service_failures_total{route="/v1/sessions"} 0
hearth_fanout_deliveries_total 40
hearth_room_deliveries_total 2
hearth_slow_closes_total 3
hearth_pushes_dropped_total{link="up"} 50
hearth_members_gone_total{how="left"} 9
hearth_members_gone_total{how="vanished"} 1
hearth_leases_run_out_total 2
hearth_shards_lost_total 3
hearth_store_breaker_state{endpoint="redis://10.0.0.1:6379"} 3
hearth_shards_held_back 4
hearth_flush_lag_seconds 0.25
hearth_peers_unreached 1
hearth_relayed_links_open 5
hearth_room_members 1e+3
"#;
        let totals = Totals::read(text);
        let expected = Totals {
            acks: 12,
            failed: 7,
            logins: 10,
            logins_refused: 12,
            resumes: 6,
            refused: 15,
            service_calls: 141,
            pushes: 42,
            slow: 3,
            bad_clients: 10,
            vanished: 1,
            leases_run_out: 2,
            shards_lost: 3,
            breakers: vec![("redis://10.0.0.1:6379".to_owned(), 3)],
            held_back: 4,
            flush_lag: 0.25,
            unreached: 1,
            relayed: 5,
            ..Totals::default()
        };
        assert_eq!(totals, expected);
    }

    #[test]
    fn steps_are_added_up_and_what_lasts_as_long_as_its_caller_likes_is_left_out() {
        let text = r#"
hearth_ack_seconds_bucket{level="applied",le="0.001"} 3
hearth_ack_seconds_bucket{level="applied",le="+Inf"} 4
hearth_ack_seconds_sum{level="applied"} 0.1
hearth_ack_seconds_bucket{level="durable",le="+Inf"} 5
hearth_commit_seconds_bucket{outcome="done",le="+Inf"} 6
hearth_commit_seconds_bucket{outcome="unknown",le="+Inf"} 1
hearth_service_request_seconds_bucket{route="/v1/stats",le="+Inf"} 7
hearth_service_request_seconds_bucket{route="/v1/events",le="+Inf"} 100
"#;
        let Totals { applied, durable, commit, service, .. } = Totals::read(text);
        let counts = [applied, durable, commit, service].map(|spread| spread.count());
        assert_eq!(counts, [4, 5, 7, 7]);
    }

    #[test]
    fn what_is_no_sample_is_passed_over() {
        for line in ["", "hearth_x", "hearth_x{a=\"b\" 3", "hearth_x three", "# hearth_x 3"] {
            assert!(Row::of(line).is_none(), "{line}");
        }
        let row = Row::of("hearth_x{le=\"1\",file=\"a b\"} 2").unwrap();
        assert_eq!(
            (row.name, row.label("file"), row.label("le"), row.count()),
            ("hearth_x", Some("a b"), Some("1"), 2)
        );
        assert_eq!(row.label("fil"), None);
    }
}
