//! Messages to a player, to many, to a room.

use reqwest::Method;

use super::{Given, Push, PushToMany, Pushed, Said, Say, Service, ServiceError, body_of, sent};

impl Service {
    /// Pushes a message to a player.
    ///
    /// # Errors
    /// [`ServiceError`]; without an answer the same `idempotency_key` makes it safe to ask again.
    pub async fn push(&self, player: &str, push: &Push<'_>) -> Result<Pushed, ServiceError> {
        body_of(sent(self.call(Method::POST, &["players", player, "messages"])?.json(push)).await?).await
    }

    /// Pushes a message to many players, or to all. Repeat it with the same `idempotency_key` until nobody is unknown.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn push_to_many(&self, push: &PushToMany<'_>) -> Result<Given, ServiceError> {
        body_of(sent(self.call(Method::POST, &["messages"])?.json(push)).await?).await
    }

    /// Pushes a message to all in a room.
    ///
    /// # Errors
    /// [`ServiceError`]; without an answer the same `idempotency_key` makes it safe to ask again.
    pub async fn say(&self, room: &str, say: &Say<'_>) -> Result<Said, ServiceError> {
        body_of(sent(self.call(Method::POST, &["rooms", room, "messages"])?.json(say)).await?).await
    }
}
