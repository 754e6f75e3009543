//! The calls that operators make, and what probes and scrapers ask.

use protocol::ErrorCode;
use protocol::calls::{
    Close, Cluster, Health, LogChange, LogView, MaintenanceView, Overview, Readiness, Stats,
};

use super::{Answer, Call, JSON};
use crate::service::{Scope, cluster, health, log, maintenance, openapi, overview, route, stats};

pub(super) fn calls() -> Vec<Call> {
    let text = |about, types| Answer { status: 200, about, types, schema: None, headers: &[] };
    vec![
        Call::get(route::MAINTENANCE, maintenance::look, ("getMaintenance", "Whether players are let in"))
            .needs(Scope::Read)
            .answers::<MaintenanceView>(200, "What is in force."),
        Call::post(route::MAINTENANCE, maintenance::begin, ("beginMaintenance", "Closes the server for players"))
            .more(
                "Links are closed with 4507; services are answered throughout. Again: changes `until` and `reason`. \
                 `store_unavailable` with `applied`: in force on this node, but a restart would forget it.",
            )
            .needs(Scope::Admin)
            .body::<Close<'_>>()
            .answers::<MaintenanceView>(200, "What is in force.")
            .refuses(&[ErrorCode::StoreUnavailable]),
        Call::delete(route::MAINTENANCE, maintenance::end, ("endMaintenance", "Opens the server for players"))
            .needs(Scope::Admin)
            .answers_nothing(204, "Players are let in.")
            .refuses(&[ErrorCode::StoreUnavailable]),
        Call::get(route::STATS, stats::stats, ("getStats", "How many players, sessions and links there are"))
            .more("Of the whole cluster, made at most once a second.")
            .needs(Scope::Read)
            .answers::<Stats>(200, "As far as nodes answer."),
        Call::get(route::CLUSTER, cluster::cluster, ("getCluster", "The nodes, the store, and where each shard stands"))
            .needs(Scope::Read)
            .answers::<Cluster>(200, "As the node sees it that is asked."),
        Call::get(route::OVERVIEW, overview::overview, ("getOverview", "The cluster at one glance, with its alarms"))
            .more(
                "What happens a second, how long it takes, how each node and the store are, which rooms are busy, who reads too \
                 slowly, and what the anomaly watch rings about and what to do. Made at most once a second; what is not known is \
                 absent, never 0.",
            )
            .needs(Scope::Read)
            .answers::<Overview>(200, "As far as nodes answer."),
        Call::get(route::LOG, log::look, ("getLog", "What this node logs"))
            .needs(Scope::Admin)
            .answers::<LogView>(200, "Of the node that is asked alone."),
        Call::put(route::LOG, log::change, ("setLog", "Has this node log by other directives for a while"))
            .more(
                "Of the node that is asked alone; then it is as its settings say. Again: changes what is in force and for how \
                 long. Audit lines are written whatever is asked, unless they are turned off by name (`audit=off`).",
            )
            .needs(Scope::Admin)
            .body::<LogChange<'_>>()
            .answers::<LogView>(200, "What is in force."),
        Call::get(route::HEALTHZ, health::healthz, ("getHealth", "Whether the process is well"))
            .answers::<Health>(200, "It is.")
            .refuses(&[ErrorCode::Internal]),
        Call::get(route::READYZ, health::readyz, ("getReadiness", "Whether the node can do its work"))
            .more("A real write and read through the store, at most once a second.")
            .answers::<Readiness>(200, "It can.")
            .answers::<Readiness>(503, "It cannot, and why."),
        Call::get(route::METRICS, health::metrics, ("getMetrics", "What the node has counted, for Prometheus"))
            .answer(text("Prometheus text.", &["text/plain"])),
        Call::get(route::OPENAPI, openapi::look, ("getOpenApi", "This document"))
            .more("It says nothing of a deployment, and tools that read it have no key.")
            .answer(text("An OpenAPI 3.1 document.", JSON)),
        Call::get(route::OPENAPI_ROOT, openapi::look, ("getOpenApiAtRoot", "This document, where it is often looked for"))
            .answer(text("An OpenAPI 3.1 document.", JSON)),
    ]
}
