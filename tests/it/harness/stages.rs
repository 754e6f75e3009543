//! One story, told on several stages: a promise that holds on one of them alone is none.
//!
//! On every stage are told the stories of what PROTOCOL and CONSISTENCY promise, also while Redis fails. On one node
//! alone are told those that are about one process: how it starts, the files that it reads, what it refuses before
//! anybody says who she is, what it holds at most, how its store is written. Several nodes by themselves, one of which is
//! hurt, have stories of their own (`cluster`, `routing`, `moved` and those whose names end in `elsewhere`).

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

/// Makes a test of each of these stages out of one story, which takes the stage.
macro_rules! stories {
    ($stages:tt $($(#[$attribute:meta])* async fn $promise:ident($stage:ident) $story:block)+) => {$(
        $(#[$attribute])*
        mod $promise {
            #[allow(unused_imports, reason = "the story's own words")]
            use super::*;

            async fn story($stage: $crate::harness::stages::Stage) $story

            $crate::harness::stages::tests! { $stages }
        }
    )+};
}

macro_rules! tests {
    ([$($name:ident: $stage:expr),+]) => {
        #[allow(unused_imports, reason = "not every list has all of them")]
        use $crate::harness::{doors::Way::{Redirected, Relayed}, stages::Stage::{Embedded, Redis, WrongNode}};

        $(#[tokio::test]
        async fn $name() {
            story($stage).await;
        })+
    };
}

/// Stories of one process.
macro_rules! on_both_stores {
    ($($stories:tt)+) => {
        $crate::harness::stages::stories! { [embedded: Embedded, redis: Redis] $($stories)+ }
    };
}

/// Stories of what is promised, on one node and on three.
macro_rules! on_every_stage {
    ($($stories:tt)+) => {
        $crate::harness::stages::stories! {
            [embedded: Embedded, redis: Redis, redirected: WrongNode(Redirected), relayed: WrongNode(Relayed)]
            $($stories)+
        }
    };
}

/// The same of stories that hurt Redis.
macro_rules! on_every_redis {
    ($($stories:tt)+) => {
        $crate::harness::stages::stories! {
            [redis: Redis, redirected: WrongNode(Redirected), relayed: WrongNode(Relayed)]
            $($stories)+
        }
    };
}

#[allow(unused_imports, reason = "tests/it does, through this same file")]
pub(crate) use {on_both_stores, on_every_redis, on_every_stage, stories, tests};
