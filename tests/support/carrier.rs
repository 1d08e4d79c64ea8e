//! A carrier, as OpenTelemetry's propagators know it.

use opentelemetry::propagation::{Extractor, Injector};
use tracing_session::propagation::Carrier;

pub(crate) struct As<C>(pub(crate) C);

impl<C: Carrier> Injector for As<&mut C> {
    fn set(&mut self, key: &str, value: String) {
        self.0.set(key, value);
    }
}

impl<C: Carrier> Extractor for As<&C> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get_all(key).first().copied()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.names()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        Some(self.0.get_all(key)).filter(|values| !values.is_empty())
    }
}
