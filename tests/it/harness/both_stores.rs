//! One story, told on each store: a promise that holds on one of them alone is none.

/// Makes a test of each store out of one story; the story takes the store's kind.
macro_rules! on_both_stores {
    ($($(#[$attribute:meta])* async fn $promise:ident($kind:ident) $story:block)+) => {$(
        $(#[$attribute])*
        mod $promise {
            #[allow(unused_imports, reason = "the story's own words")]
            use super::*;

            async fn story($kind: $crate::harness::server::StoreKind) $story

            #[tokio::test]
            async fn embedded() {
                story($crate::harness::server::StoreKind::Embedded).await;
            }

            #[tokio::test]
            async fn redis() {
                story($crate::harness::server::StoreKind::Redis).await;
            }
        }
    )+};
}

pub(crate) use on_both_stores;
