//! One story, told on several stages: a promise that holds on one of them alone is none.
//!
//! On every stage are told the stories of what PROTOCOL and CONSISTENCY promise. On one node alone are told those that
//! are about one process: how it starts and what it says then, its data folder, a store that fails, what it refuses
//! before a player is named, and its own settings and counts.

use super::doors::Way;

/// Where a story is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// One node on the embedded store.
    Embedded,
    /// One node on a Redis.
    Redis,
    /// Three nodes on a Redis. Every client and service begins at one that is not her player's home.
    #[allow(dead_code, reason = "tests/it does, through this same file")]
    WrongNode(Way),
}

/// Makes a test of each store out of one story of one process; the story takes the stage.
macro_rules! on_both_stores {
    ($($(#[$attribute:meta])* async fn $promise:ident($stage:ident) $story:block)+) => {$(
        $(#[$attribute])*
        mod $promise {
            #[allow(unused_imports, reason = "the story's own words")]
            use super::*;
            use $crate::harness::stages::Stage;

            async fn story($stage: Stage) $story

            #[tokio::test]
            async fn embedded() {
                story(Stage::Embedded).await;
            }

            #[tokio::test]
            async fn redis() {
                story(Stage::Redis).await;
            }
        }
    )+};
}

/// The same, and a test of each way in which a client at the wrong node comes to her home.
macro_rules! on_every_stage {
    ($($(#[$attribute:meta])* async fn $promise:ident($stage:ident) $story:block)+) => {$(
        $(#[$attribute])*
        mod $promise {
            #[allow(unused_imports, reason = "the story's own words")]
            use super::*;
            use $crate::harness::doors::Way;
            use $crate::harness::stages::Stage;

            async fn story($stage: Stage) $story

            #[tokio::test]
            async fn embedded() {
                story(Stage::Embedded).await;
            }

            #[tokio::test]
            async fn redis() {
                story(Stage::Redis).await;
            }

            #[tokio::test]
            async fn redirected() {
                story(Stage::WrongNode(Way::Redirected)).await;
            }

            #[tokio::test]
            async fn relayed() {
                story(Stage::WrongNode(Way::Relayed)).await;
            }
        }
    )+};
}

/// The same of a story that hurts Redis: on one node and on three.
macro_rules! on_every_redis {
    ($($(#[$attribute:meta])* async fn $promise:ident($stage:ident) $story:block)+) => {$(
        $(#[$attribute])*
        mod $promise {
            #[allow(unused_imports, reason = "the story's own words")]
            use super::*;
            use $crate::harness::doors::Way;
            use $crate::harness::stages::Stage;

            async fn story($stage: Stage) $story

            #[tokio::test]
            async fn redis() {
                story(Stage::Redis).await;
            }

            #[tokio::test]
            async fn redirected() {
                story(Stage::WrongNode(Way::Redirected)).await;
            }

            #[tokio::test]
            async fn relayed() {
                story(Stage::WrongNode(Way::Relayed)).await;
            }
        }
    )+};
}

#[allow(unused_imports, reason = "tests/it does, through this same file")]
pub(crate) use {on_both_stores, on_every_redis, on_every_stage};
