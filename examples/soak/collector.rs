//! The collector: an OTLP receiver on a socket, which works or fails in several ways.

use crate::Outcome;
use crate::telemetry::{TIMEOUT, print_of};
use crate::want::{WANTED_METADATA, WANTED_SESSION, WANTED_USER, WAY};
use axum::body::Bytes;
use axum::http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry::trace::SpanId;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How it handles a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mood {
    Well,
    /// Accepts it, and answers late.
    Slow,
    /// Accepts it, and answers after the exporter's timeout.
    TooLate,
    /// 429, with a time to wait.
    Busy,
    /// 503.
    Unavailable,
    /// Accepts it, and closes the connection without an answer.
    CutsOff,
    /// Does not listen.
    Dead,
}

/// The spans that it has accepted.
#[derive(Default)]
pub(crate) struct Taken {
    /// How many spans, and how often, by the print of the batch.
    pub(crate) batches: HashMap<u64, (u64, u64)>,
    pub(crate) by_way: BTreeMap<String, Checked>,
    /// The first wrong spans.
    pub(crate) wrong: Vec<String>,
    /// Requests that it took, or did not, in each mood.
    pub(crate) requests: BTreeMap<Mood, u64>,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Checked {
    pub(crate) spans: u64,
    pub(crate) in_a_session: u64,
    pub(crate) wrong: u64,
}

#[derive(Clone)]
pub(crate) struct Collector {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    taken: Arc<Mutex<Taken>>,
}

/// More than the exporter ever pauses.
const MOST_PATIENCE: Duration = Duration::from_secs(5);
/// Enough for a report.
pub(crate) const MOST_EXAMPLES: usize = 10;

impl Collector {
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let this = Self {
            address: listener.local_addr()?,
            mood: watch::Sender::new(Mood::Well),
            taken: Arc::default(),
        };
        tokio::spawn(this.clone().run(listener));
        Ok(this)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// In that mood for so long, and until somebody has met it in it. Dead it meets nobody: then for as
    /// long as an exporter tries.
    pub(crate) async fn be(&self, mood: Mood, length: Duration) {
        let met = || self.taken().requests.get(&mood).copied();
        let (begun, before) = (Instant::now(), met());
        self.mood.send_replace(mood);
        if mood == Mood::Dead {
            return sleep(length.max(TIMEOUT)).await;
        }
        sleep(length).await;
        while met() == before && begun.elapsed() < length + MOST_PATIENCE {
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens or doesn't listen, depending on its mood.
    async fn run(self, listener: TcpListener) {
        let mut mood = self.mood.subscribe();
        let mut listener = Some(listener);
        loop {
            if let Some(listener) = listener.take() {
                tokio::select! {
                    _ = mood.wait_for(|mood| *mood == Mood::Dead) => {}
                    () = self.listen(&listener) => {}
                }
                // Here all connections have been closed, whatever was under way.
            }
            drop(mood.wait_for(|mood| *mood != Mood::Dead).await);
            match TcpListener::bind(self.address).await {
                Ok(again) => listener = Some(again),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn listen(&self, listener: &TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let this = self.clone();
            let service = service_fn(move |request| this.clone().answer(request));
            let http = http1::Builder::new();
            connections.spawn(http.serve_connection(TokioIo::new(stream), service));
            while connections.try_join_next().is_some() {}
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Outcome<Response<Empty<Bytes>>> {
        let mood = *self.mood.borrow();
        let body = request.into_body().collect().await?.to_bytes();
        *self.taken().requests.entry(mood).or_default() += 1;
        let answer = |status| Response::builder().status(status);
        let refused = match mood {
            Mood::Busy => {
                Some(answer(StatusCode::TOO_MANY_REQUESTS).header(header::RETRY_AFTER, 1))
            }
            Mood::Unavailable => Some(answer(StatusCode::SERVICE_UNAVAILABLE)),
            _ => None,
        };
        if let Some(refused) = refused {
            return Ok(refused.body(Empty::new())?);
        }
        let request = ExportTraceServiceRequest::decode(body)?;
        self.taken().take(&request);
        match mood {
            Mood::Slow => sleep(TIMEOUT / 2).await,
            Mood::TooLate => sleep(TIMEOUT * 3 / 2).await,
            // Close the connection without an answer.
            Mood::CutsOff => return Err("cut off".into()),
            _ => {}
        }
        Ok(answer(StatusCode::OK).body(Empty::new())?)
    }
}

impl Taken {
    fn take(&mut self, request: &ExportTraceServiceRequest) {
        let scopes = request.resource_spans.iter().flat_map(|it| &it.scope_spans);
        let spans: Vec<_> = scopes.flat_map(|it| &it.spans).collect();
        let id = |span: &&Span| span.span_id.as_slice().try_into().map(SpanId::from_bytes);
        let print = print_of(spans.iter().filter_map(|span| id(span).ok()));
        let batch = self.batches.entry(print).or_default();
        *batch = (spans.len() as u64, batch.1 + 1);
        if batch.1 == 1 {
            spans.into_iter().for_each(|span| self.check(span));
        }
    }

    fn check(&mut self, span: &Span) {
        let way = values(span, WAY);
        let wrong = [
            (WANTED_SESSION, "session.id"),
            (WANTED_USER, "user.id"),
            (WANTED_METADATA, "metadata"),
        ]
        .map(|(wanted, key)| (key, values(span, key), values(span, wanted)));
        let is_right = way.len() == 1 && wrong.iter().all(|(_, has, wanted)| has == wanted);
        let checked = self.by_way.entry(way.join(" and ")).or_default();
        checked.spans += 1;
        checked.in_a_session += u64::from(!wrong[0].1.is_empty());
        checked.wrong += u64::from(!is_right);
        if !is_right && self.wrong.len() < MOST_EXAMPLES {
            let wrong = wrong.map(|(key, has, wanted)| format!("{key} {has:?}, not {wanted:?}"));
            self.wrong
                .push(format!("{} of {way:?}: {}", span.name, wrong.join("; ")));
        }
    }

    pub(crate) fn checked(&self) -> Checked {
        let add = |sum: Checked, it: &Checked| Checked {
            spans: sum.spans + it.spans,
            in_a_session: sum.in_a_session + it.in_a_session,
            wrong: sum.wrong + it.wrong,
        };
        self.by_way.values().fold(Checked::default(), add)
    }
}

/// All values of the span under this key. A key that is exported twice shows.
fn values(span: &Span, key: &str) -> Vec<String> {
    let values = span.attributes.iter().filter(|it| it.key == key);
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        other => format!("{other:?}"),
    };
    values
        .filter_map(|it| it.value.as_ref()?.value.as_ref().map(text))
        .collect()
}
