//! Which trace a request belongs to, and what the service behind is told of it (W3C Trace Context).
//!
//! A trace that began elsewhere goes on as it came, unless its spans are recorded here: then the
//! service's parent is the span of our call. Where there is none, or nothing sound, one begins.
//! `tracestate` belongs to a sound `traceparent` and goes with it.

use http::HeaderMap;
use pingora_error::Result;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::decide::Refusal;
use super::{Context, Gateway, access_line};
use crate::config::settings::TracingSettings;
use crate::telemetry::Outcome;
use crate::telemetry::spans::{Call, Finished, SpanQueue, known_method};
use crate::telemetry::trace_context::{SpanId, TRACEPARENT, TRACESTATE, TraceContext, TraceId};

/// The share that is everything.
const ALL: f64 = 1.0;

/// What decides about traces, and where spans go.
#[derive(Debug)]
pub struct Tracer {
    creates: bool,
    follows_parent: bool,
    /// How many of the traces that are decided about here are marked as recorded.
    sample_ratio: f64,
    /// Where spans are noted; `None`: nothing is recorded.
    queue: Option<SpanQueue>,
}

/// The trace of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trace {
    pub id: TraceId,
    /// The span that the request was sent from.
    parent: Option<SpanId>,
    /// The spans of the request itself and of the call of the service, where they are recorded.
    recorded: Option<(SpanId, SpanId)>,
    onward: Onward,
}

/// What the service is told.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Onward {
    /// What the client said.
    Same,
    /// The same trace, but the parent or the flag are another.
    Changed(TraceContext),
    /// A trace that begins here.
    New(TraceContext),
    /// Nothing: it begins its own.
    Nothing,
}

impl Tracer {
    pub fn new(settings: &TracingSettings, queue: Option<SpanQueue>) -> Self {
        Tracer {
            creates: settings.creates,
            follows_parent: settings.follows_parent,
            // Services do as the mark says: who records nothing doesn't keep them from it.
            sample_ratio: queue.as_ref().map_or(ALL, |_| settings.sample_ratio),
            queue,
        }
    }

    /// The trace of a request with `headers`.
    pub fn begin(&self, headers: &HeaderMap) -> Trace {
        self.follow(TraceContext::of(headers))
    }

    fn follow(&self, received: Option<TraceContext>) -> Trace {
        let sampled = match received {
            Some(context) if self.follows_parent => context.sampled,
            // By chance and not by the id, which a client may have chosen.
            _ => fastrand::f64() < self.sample_ratio,
        };
        let trace_id = received.map_or_else(TraceId::random, |context| context.trace_id);
        let is_recorded = sampled && self.queue.is_some();
        let recorded = is_recorded.then(|| (SpanId::random(), SpanId::random()));
        let told = |span_id| TraceContext {
            trace_id,
            span_id,
            sampled,
        };
        let onward = match (received, recorded) {
            (Some(_), Some((_, call))) => Onward::Changed(told(call)),
            (Some(context), None) if context.sampled == sampled => Onward::Same,
            // Who changes the flag is a parent of its own, as the specification asks.
            (Some(_), None) => Onward::Changed(told(SpanId::random())),
            (None, Some((_, call))) => Onward::New(told(call)),
            (None, None) if self.creates => Onward::New(told(SpanId::random())),
            (None, None) => Onward::Nothing,
        };
        Trace {
            id: trace_id,
            parent: received.map(|context| context.span_id),
            recorded,
            onward,
        }
    }
}

impl Trace {
    /// Tells the service.
    pub fn write(&self, request: &mut RequestHeader) -> Result<()> {
        let context = match self.onward {
            Onward::Same => return Ok(()),
            Onward::Changed(context) => Some(context),
            Onward::New(context) => {
                request.remove_header(&TRACESTATE);
                Some(context)
            }
            Onward::Nothing => {
                request.remove_header(&TRACESTATE);
                None
            }
        };
        match context.and_then(TraceContext::to_field) {
            Some(field) => request.insert_header("traceparent", field),
            None => {
                request.remove_header(&TRACEPARENT);
                Ok(())
            }
        }
    }
}

impl Gateway {
    /// Notes the spans of a request that is over, where they are recorded.
    pub(super) fn finish_trace(
        &self,
        session: &Session,
        ctx: &Context,
        outcome: Outcome,
        took_us: u64,
    ) {
        let Some(queue) = &self.tracer.queue else {
            return;
        };
        let Some((trace, (span_id, call_id))) =
            ctx.trace.and_then(|trace| Some((trace, trace.recorded?)))
        else {
            return;
        };
        let request = session.req_header();
        let status = access_line::status(session);
        let caller = ctx.caller_view();
        queue.note(Finished {
            trace_id: trace.id,
            span_id,
            parent: trace.parent,
            ended_at: self.clock.now(),
            took_us,
            method: known_method(&request.method),
            version: request.version,
            path: access_line::path(request),
            client: ctx.client,
            route: ctx.route.as_ref().map(|route| route.name.clone()),
            status,
            outcome,
            shadow: ctx.shadow.map(Refusal::outcome),
            request_id: ctx.request_id().to_owned(),
            key_id: caller.as_ref().map(|view| view.id.as_str().to_owned()),
            tenant_id: caller.map(|view| view.tenant.id.as_str().to_owned()),
            call: call(ctx, call_id),
        });
    }
}

/// The call of the service, where there was one.
fn call(ctx: &Context, span_id: SpanId) -> Option<Call> {
    let (passed_on_us, endpoint) = (ctx.passed_on_us?, ctx.endpoint.as_ref()?);
    let tried = ctx.tried.iter();
    Some(Call {
        span_id,
        after_us: passed_on_us.saturating_sub(ctx.started_us),
        server: endpoint.address(),
        failed_attempts: tried.filter(|other| **other != endpoint.address()).count(),
        status: ctx.upstream_status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::IntCounter;
    use std::time::Duration;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn tracer(exports: bool, ratio: f64) -> Tracer {
        let settings = TracingSettings {
            endpoint: None,
            service_name: "sidekey".to_owned(),
            creates: true,
            sample_ratio: ratio,
            follows_parent: true,
            timeout: Duration::from_secs(1),
        };
        let queue = exports.then(|| SpanQueue::for_test(IntCounter::new("a", "b").unwrap()));
        Tracer::new(&settings, queue)
    }

    /// The request as the service sees it, and its trace.
    fn passed(tracer: &Tracer, lines: &[(&'static str, &str)]) -> (RequestHeader, Trace) {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in lines {
            request.append_header(*name, *value).unwrap();
        }
        let trace = tracer.begin(&request.headers);
        trace.write(&mut request).unwrap();
        (request, trace)
    }

    fn all(request: &RequestHeader, name: &str) -> Vec<String> {
        let values = request.headers.get_all(name).iter();
        values.map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn without_a_collector_a_sound_trace_goes_on_as_it_came() {
        for ratio in [0.0, 1.0] {
            for field in [SAMPLED, UNSAMPLED, &SAMPLED.replacen("00", "cc", 1)] {
                let lines = [("traceparent", field), ("tracestate", "a=1,b=2")];
                let (request, trace) = passed(&tracer(false, ratio), &lines);
                assert_eq!(all(&request, "traceparent"), [field]);
                assert_eq!(all(&request, "tracestate"), ["a=1,b=2"]);
                assert_eq!(trace.id.to_string(), &SAMPLED[3..35]);
            }
        }
    }

    #[test]
    fn what_is_not_sound_is_replaced_and_its_state_goes() {
        for lines in [
            vec![],
            vec![("tracestate", "a=1")],
            vec![("traceparent", "nonsense"), ("tracestate", "a=1")],
            vec![
                ("traceparent", SAMPLED),
                ("traceparent", UNSAMPLED),
                ("tracestate", "a=1"),
            ],
            vec![
                ("Traceparent", ""),
                ("TraceState", "a=1"),
                ("tracestate", "b=1"),
            ],
        ] {
            for (exports, ratio) in [(false, 0.0), (false, 1.0), (true, 0.0), (true, 1.0)] {
                let (request, trace) = passed(&tracer(exports, ratio), &lines);
                let fields = all(&request, "traceparent");
                assert_eq!(fields.len(), 1, "{lines:?}");
                let told = TraceContext::parse(fields[0].as_bytes()).unwrap();
                assert_eq!(told.trace_id, trace.id);
                // Where nothing is recorded here, services decide by themselves.
                assert_eq!(told.sampled, !exports || ratio > 0.0);
                assert_eq!(trace.parent, None);
                assert_eq!(all(&request, "tracestate"), Vec::<String>::new());
                assert_eq!(trace.recorded.is_some(), exports && ratio > 0.0);
                if let Some((_, call)) = trace.recorded {
                    assert_eq!(told.span_id, call);
                }
            }
        }
    }

    #[test]
    fn a_recorded_trace_goes_on_with_our_call_as_parent() {
        let lines = [("traceparent", SAMPLED), ("tracestate", "a=1")];
        let (request, trace) = passed(&tracer(true, 0.0), &lines);
        let (own, call) = trace.recorded.unwrap();
        assert_ne!(own, call);
        assert_eq!(trace.parent.unwrap().to_string(), &SAMPLED[36..52]);
        let expected = format!("{}-{call}-01", &SAMPLED[..35]);
        assert_eq!(all(&request, "traceparent"), [expected]);
        assert_eq!(all(&request, "tracestate"), ["a=1"]);
        // Not recorded there, not recorded here.
        let (request, trace) = passed(&tracer(true, 1.0), &[("traceparent", UNSAMPLED)]);
        assert_eq!(trace.recorded, None);
        assert_eq!(all(&request, "traceparent"), [UNSAMPLED]);
    }

    #[test]
    fn clients_that_are_not_followed_decide_nothing() {
        let not_following = |exports, ratio| Tracer {
            follows_parent: false,
            ..tracer(exports, ratio)
        };
        let lines = [("traceparent", SAMPLED), ("tracestate", "a=1")];
        let (request, trace) = passed(&not_following(true, 0.0), &lines);
        assert_eq!(trace.recorded, None);
        let told = TraceContext::of(&request.headers).unwrap();
        let parent = told.span_id.to_string();
        assert_eq!(
            all(&request, "traceparent"),
            [format!("{}-{parent}-00", &SAMPLED[..35])]
        );
        // The flag is another, so the parent is.
        assert_ne!(parent, &SAMPLED[36..52]);
        assert_eq!(all(&request, "tracestate"), ["a=1"]);
        // The flag would be the same.
        let (request, _) = passed(&not_following(true, 0.0), &[("traceparent", UNSAMPLED)]);
        assert_eq!(all(&request, "traceparent"), [UNSAMPLED]);
        let (request, trace) = passed(&not_following(true, 1.0), &[("traceparent", UNSAMPLED)]);
        let (_, call) = trace.recorded.unwrap();
        let expected = format!("{}-{call}-01", &SAMPLED[..35]);
        assert_eq!(all(&request, "traceparent"), [expected]);
    }

    #[test]
    fn nothing_begins_where_that_is_left_to_the_service() {
        let leaving = |exports, ratio| Tracer {
            creates: false,
            ..tracer(exports, ratio)
        };
        for lines in [
            vec![("tracestate", "a=1")],
            vec![("traceparent", "nonsense"), ("tracestate", "a=1")],
        ] {
            let (request, _) = passed(&leaving(true, 0.0), &lines);
            assert!(request.headers.is_empty(), "{lines:?}");
            // What is recorded here has to be told.
            let (request, trace) = passed(&leaving(true, 1.0), &lines);
            assert!(trace.recorded.is_some());
            assert_eq!(all(&request, "traceparent").len(), 1);
        }
        let (request, _) = passed(&leaving(false, 1.0), &[("traceparent", SAMPLED)]);
        assert_eq!(all(&request, "traceparent"), [SAMPLED]);
    }
}
