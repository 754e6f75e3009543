//! Rooms: who is in one, who is put in.

use reqwest::Method;

use super::{Join, PutIn, RoomView, Service, ServiceError, body_of, sent};

impl Service {
    /// A page of who is in a room: the first, or the one after `cursor`.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn room(
        &self,
        room: &str,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<RoomView, ServiceError> {
        let request = self.call(Method::GET, &["rooms", room])?.query(&[("cursor", cursor)]);
        body_of(sent(request.query(&[("limit", limit)])).await?).await
    }

    /// How many are in a room.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn room_count(&self, room: &str) -> Result<u32, ServiceError> {
        let request = self.call(Method::GET, &["rooms", room])?.query(&[("count_only", true)]);
        let view: RoomView = body_of(sent(request).await?).await?;
        Ok(view.roster.count)
    }

    /// Puts a player into a room with all her sessions, durably.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::NotFound`] without a session, [`crate::ErrorCode::RoomFull`].
    pub async fn put_in(&self, room: &str, player: &str, join: &Join<'_>) -> Result<PutIn, ServiceError> {
        body_of(sent(self.call(Method::PUT, &["rooms", room, "members", player])?.json(join)).await?).await
    }

    /// Takes a player out of a room with all her sessions, durably.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::NotFound`] where she was not in.
    pub async fn take_out(&self, room: &str, player: &str) -> Result<(), ServiceError> {
        sent(self.call(Method::DELETE, &["rooms", room, "members", player])?).await.map(drop)
    }
}
