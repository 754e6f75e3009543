//! What services keep beside players: handed to the store as it is, by whichever node was asked. Nothing of it is in a
//! home's memory, so no lease fences it: each call is one comparison and one write in the store.

use super::Home;
use crate::ids::{BlobName, KeyName, PlayerId};
use crate::store::{
    Blob, BlobKey, BlobPut, BlobQuota, BlobRemoved, BlobWritten, Counted, CounterRequest, LockAcquired,
    LockOwner, LockRequest, LockToken, Precondition, StoreError,
};

impl Home {
    /// Changes a counter within its bounds, or looks at it.
    ///
    /// # Errors
    /// [`StoreError`]: but for [`StoreError::HeldBack`] and [`StoreError::Refused`] it is not known whether it was changed;
    /// a change that has a name may be asked for again.
    pub async fn count(&self, request: CounterRequest) -> Result<Counted, StoreError> {
        self.store.counter(request).await
    }

    /// Takes a lock, if it is free or has run out. The same owner may ask again.
    ///
    /// # Errors
    /// [`StoreError`]: but for [`StoreError::HeldBack`] it may be the owner's now, or in a moment.
    pub async fn acquire_lock(&self, request: LockRequest) -> Result<LockAcquired, StoreError> {
        self.store.lock_acquire(request).await
    }

    /// Gives the holder of a lock more time; its token. `None`: it is not hers, or not any more.
    ///
    /// # Errors
    /// [`StoreError`]: she may have it for longer, or as long as before.
    pub async fn renew_lock(&self, request: LockRequest) -> Result<Option<LockToken>, StoreError> {
        self.store.lock_renew(request).await
    }

    /// Gives a lock back. `false`: it is not the owner's, or not any more.
    ///
    /// # Errors
    /// [`StoreError`]: it may be free, and is so after its time at the latest.
    pub async fn release_lock(&self, name: KeyName, owner: LockOwner) -> Result<bool, StoreError> {
        self.store.lock_release(name, owner).await
    }

    /// Gives back a lock that may be the owner's, or may become hers by what she asked before: it does not any more. Whether
    /// it was.
    ///
    /// # Errors
    /// [`StoreError`]: to be called again.
    pub async fn cancel_lock(&self, name: KeyName, owner: LockOwner) -> Result<bool, StoreError> {
        self.store.lock_cancel(name, owner).await
    }

    /// Writes a blob of a player, whether she is here or was ever seen. When this returns, the store has it.
    ///
    /// # Errors
    /// [`StoreError`]: but for [`StoreError::HeldBack`], [`StoreError::Crowded`] and [`StoreError::Refused`] it may be written,
    /// or may still be.
    pub async fn put_blob(
        &self,
        (player, name): (PlayerId, BlobName),
        blob: Blob,
        precondition: Precondition,
        quota: BlobQuota,
    ) -> Result<BlobWritten, StoreError> {
        let key = self.blob_key(player, name);
        self.store.blob_put(BlobPut { key, blob, precondition, quota }).await
    }

    /// A blob of a player.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_blob(&self, player: PlayerId, name: BlobName) -> Result<Option<Blob>, StoreError> {
        self.store.blob_read(self.blob_key(player, name)).await
    }

    /// Removes a blob of a player.
    ///
    /// # Errors
    /// [`StoreError`]: it may be removed, or may still be.
    pub async fn remove_blob(
        &self,
        player: PlayerId,
        name: BlobName,
        precondition: Precondition,
    ) -> Result<BlobRemoved, StoreError> {
        self.store.blob_remove(self.blob_key(player, name), precondition).await
    }

    /// Removes all blobs of a player.
    ///
    /// # Errors
    /// [`StoreError`]; the same call again removes the rest.
    pub async fn erase_blobs(&self, player: &PlayerId) -> Result<(), StoreError> {
        self.store.blobs_erase(self.placement.shard_of(player), player.clone()).await
    }

    fn blob_key(&self, player: PlayerId, name: BlobName) -> BlobKey {
        BlobKey { shard: self.placement.shard_of(&player), player, name }
    }
}
