//! What operators ask and say: maintenance, figures, the cluster, health.

use reqwest::Method;

use super::{
    Close, Cluster, Health, LogChange, LogView, MaintenanceView, Overview, Readiness, Service, ServiceError,
    Stats, body_of, sent,
};

impl Service {
    /// Whether players are let in.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn maintenance(&self) -> Result<MaintenanceView, ServiceError> {
        body_of(sent(self.call(Method::GET, &["maintenance"])?).await?).await
    }

    /// Closes the server for players.
    ///
    /// # Errors
    /// [`ServiceError`]; one with `applied`: in force on this node, but the store does not have it yet.
    pub async fn begin_maintenance(&self, close: &Close<'_>) -> Result<MaintenanceView, ServiceError> {
        body_of(sent(self.call(Method::POST, &["maintenance"])?.json(close)).await?).await
    }

    /// Opens the server for players.
    ///
    /// # Errors
    /// [`ServiceError`]; one with `applied`: in force on this node, but the store does not have it yet.
    pub async fn end_maintenance(&self) -> Result<(), ServiceError> {
        sent(self.call(Method::DELETE, &["maintenance"])?).await.map(drop)
    }

    /// How many players, sessions and links there are.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn stats(&self) -> Result<Stats, ServiceError> {
        body_of(sent(self.call(Method::GET, &["stats"])?).await?).await
    }

    /// The nodes, the store, and where each shard stands.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn cluster(&self) -> Result<Cluster, ServiceError> {
        body_of(sent(self.call(Method::GET, &["cluster"])?).await?).await
    }

    /// The cluster at one glance: what happens, how long it takes, and the alarms that are on.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn overview(&self) -> Result<Overview, ServiceError> {
        body_of(sent(self.call(Method::GET, &["overview"])?).await?).await
    }

    /// What the node logs that is asked.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn log(&self) -> Result<LogView, ServiceError> {
        body_of(sent(self.call(Method::GET, &["log"])?).await?).await
    }

    /// Has the node that is asked log by other directives for a while.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::BadRequest`] for what are no directives.
    pub async fn set_log(&self, change: &LogChange<'_>) -> Result<LogView, ServiceError> {
        body_of(sent(self.call(Method::PUT, &["log"])?.json(change)).await?).await
    }

    /// Whether the process is well.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::Internal`] where it is not.
    pub async fn health(&self) -> Result<Health, ServiceError> {
        body_of(sent(self.outside("/healthz")).await?).await
    }

    /// Whether the node can do its work, and why not.
    ///
    /// # Errors
    /// [`ServiceError`]; that it is not ready is none.
    pub async fn readiness(&self) -> Result<Readiness, ServiceError> {
        body_of(self.outside("/readyz").send().await.map_err(ServiceError::Unreachable)?).await
    }

    /// What the node has counted, as Prometheus text.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn metrics(&self) -> Result<String, ServiceError> {
        sent(self.outside("/metrics")).await?.text().await.map_err(ServiceError::Unreachable)
    }

    /// The OpenAPI document of this API.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn openapi(&self) -> Result<String, ServiceError> {
        sent(self.outside("/v1/openapi.json")).await?.text().await.map_err(ServiceError::Unreachable)
    }
}
