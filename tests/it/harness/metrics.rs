//! What a server says of itself on `/metrics`: how a story knows that something has been felt.

use super::patience::until;
use super::server::Server;

impl Server {
    /// The sum of all series of a metric with this label; of all its series if the label is empty. Of several nodes
    /// together.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> u64 {
        let mut sum = 0;
        for url in self.service_urls() {
            let page = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
            let series = page.lines().filter(|line| {
                let of_name = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
                of_name && line.contains(label)
            });
            let values = series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64);
            sum += values.sum::<u64>();
        }
        sum
    }

    /// Waits until a metric has come this far.
    pub(crate) async fn until_metric(&self, name: &str, label: &str, at_least: u64) {
        let what = format!("{name} {label} to reach {at_least}");
        until(&what, async || (self.metric(name, label).await >= at_least).then_some(())).await;
    }
}
