//! The numbers and their names. Those of OpenTelemetry's semantic conventions
//! where they have one, `machina_…` otherwise; `docs/reference/metrics.md` lists
//! them. What has a name of a service, an instance or a tool in it is bounded.

use std::fmt;
use std::sync::Arc;

use machina_core::{
    AlertCounts, CallStatistics, DURATION_BOUNDS, HealthState, InstanceStatistics, Measured, ServiceStatistics,
    ServiceView, Status, Timestamp,
};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::requests::Requests;

/// How many series there may be of one name. Further ones are left out, and
/// `machina_metrics_series_omitted` says how many.
const SERIES_MAX: usize = 20_000;

type Written = Result<(), fmt::Error>;
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Everything that is known at one moment.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) measured: Measured,
    pub(super) requests: Arc<Requests>,
    pub(super) streams_open: usize,
    pub(super) started_at: Timestamp,
}

impl prometheus_client::collector::Collector for Collector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let mut page = Page { encoder, omitted: 0 };
        self.of_the_process(&mut page)?;
        self.of_requests(&mut page)?;
        self.of_the_registry(&mut page)?;
        self.of_services(&mut page)?;
        self.of_instances(&mut page)?;
        let omitted = page.omitted;
        page.gauge("machina_metrics_series_omitted", "Series left out of this answer: too many of one name", omitted)
    }
}

impl Collector {
    fn of_the_process(&self, page: &mut Page<'_>) -> Written {
        let mut build = page.family("machina_build", "The version of the server", None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        #[allow(clippy::cast_precision_loss, reason = "a time in milliseconds")]
        let started = self.started_at.as_millisecond() as f64 / 1000.0;
        let what = "When the server started, in seconds since 1970";
        page.family("process_start_time", what, Some(&Unit::Seconds), MetricType::Gauge)?.encode_gauge(&started)?;
        if let Some(bytes) = resident_bytes() {
            let what = "Memory of the process, without that of its children";
            page.family("process_resident_memory", what, Some(&Unit::Bytes), MetricType::Gauge)?
                .encode_gauge(&bytes)?;
        }
        Ok(())
    }

    fn of_requests(&self, page: &mut Page<'_>) -> Written {
        let what = "How long requests took until the head of the answer";
        let counted = self.requests.counted();
        page.each("http_server_request_duration", what, Some(&Unit::Seconds), MetricType::Histogram, |put| {
            for one in &counted {
                let status = one.status.to_string();
                let labels = vec![
                    ("http_request_method", one.method),
                    ("http_route", &one.route),
                    ("http_response_status_code", &status),
                ];
                put.histogram(&labels, one.seconds, &one.buckets)?;
            }
            Ok(())
        })
    }

    fn of_the_registry(&self, page: &mut Page<'_>) -> Written {
        let Measured { view, sessions, dropped_journal_entries, self_preservation, .. } = &self.measured;
        let services = || view.services();
        page.gauge("machina_revision", "The revision that readers see", view.revision().0)?;
        page.each("machina_services", "Services by status", None, MetricType::Gauge, |put| {
            Status::ALL.iter().try_for_each(|status| {
                let count = services().filter(|service| service.status() == *status).count();
                put.gauge(&vec![("status", status.as_str())], count as u64)
            })
        })?;
        page.each("machina_instances", "Instances by state of health", None, MetricType::Gauge, |put| {
            HealthState::ALL.iter().try_for_each(|state| {
                let seen = services().flat_map(|service| service.instances());
                let count = seen.filter(|(_, seen)| seen.health.state == *state).count();
                put.gauge(&vec![("state", state.as_str())], count as u64)
            })
        })?;
        let tools: usize = services().map(|service| service.tools().len()).sum();
        page.gauge("machina_tools", "Tools that services offer", tools as u64)?;
        page.gauge("machina_groups", "Groups", view.groups().len() as u64)?;
        page.gauge("machina_sessions_open", "Open sessions with instances", *sessions as u64)?;
        page.gauge("machina_event_streams_open", "Open streams of events, and channels", self.streams_open as u64)?;
        let what = "Whether soft failures take nothing down, because so many instances fail at once";
        page.gauge("machina_self_preservation", what, u64::from(*self_preservation))?;
        self.of_alerts(page)?;
        self.of_the_store(page)?;
        let what = "Journal entries that were dropped because the store was too slow";
        let mut family = page.family("machina_journal_entries_dropped", what, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, u64>(dropped_journal_entries, None)
    }

    fn of_the_store(&self, page: &mut Page<'_>) -> Written {
        let standing = &self.measured.standing;
        page.gauge("machina_store_lag_milliseconds", "How old what readers see may be", standing.lag_ms)?;
        let Some(replica) = &standing.replica else { return Ok(()) };
        page.gauge("machina_replicas", "Replicas that share the store", u64::from(replica.replicas))?;
        page.gauge("machina_shards_held", "Shards that this replica looks after", u64::from(replica.shards))?;
        let what = "Writes of this replica that the store refused because another looks after the instance";
        let mut family = page.family("machina_replica_writes_refused", what, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, u64>(&replica.refused_writes, None)
    }

    fn of_alerts(&self, page: &mut Page<'_>) -> Written {
        let AlertCounts { firing, channels } = &self.measured.alerts;
        page.each("machina_alerts_firing", "Alerts that fire, by level", None, MetricType::Gauge, |put| {
            firing.iter().try_for_each(|(level, count)| put.gauge(&vec![("level", level.as_str())], *count))
        })?;
        let what = "Messages about alerts, by channel and outcome";
        page.each("machina_alert_messages", what, None, MetricType::Counter, |put| {
            channels.iter().try_for_each(|channel| {
                let of = |outcome| vec![("channel", channel.name.as_str()), ("outcome", outcome)];
                put.counter(&of("delivered"), channel.delivered)?;
                put.counter(&of("failed"), channel.failed)
            })
        })?;
        let what = "Alerts that had to wait, for quiet hours or self-preservation";
        page.each("machina_alerts_held", what, None, MetricType::Counter, |put| {
            channels.iter().try_for_each(|channel| put.counter(&vec![("channel", channel.name.as_str())], channel.held))
        })
    }

    fn of_services(&self, page: &mut Page<'_>) -> Written {
        let all: Vec<&Arc<ServiceView>> = self.measured.view.services().collect();
        page.each("machina_service_status", "The status of each service: 1", None, MetricType::Gauge, |put| {
            all.iter().try_for_each(|view| {
                put.gauge(&vec![("service", view.service().name().as_str()), ("status", view.status().as_str())], 1)
            })
        })?;
        let called: Vec<(&str, ServiceStatistics)> = all
            .iter()
            .map(|view| (view.service().name().as_str(), view.statistics()))
            .filter(|(_, statistics)| statistics.calls.count > 0)
            .collect();
        let what = "How long calls took, all attempts together";
        page.each("machina_call_duration", what, Some(&Unit::Seconds), MetricType::Histogram, |put| {
            called.iter().try_for_each(|(service, ServiceStatistics { calls, .. })| {
                put.histogram(&vec![("service", service)], calls.duration_seconds, &calls.buckets)
            })
        })?;
        page.each("machina_call_errors", "Calls without a good answer", None, MetricType::Counter, |put| {
            called.iter().try_for_each(|(service, of)| put.errors(&vec![("service", service)], &of.calls))
        })?;
        let tools = || {
            called.iter().flat_map(|(service, of)| {
                of.tools.iter().map(move |(tool, calls)| (vec![("service", *service), ("tool", tool.as_str())], calls))
            })
        };
        page.each("machina_tool_calls", "Calls by tool", None, MetricType::Counter, |put| {
            tools().try_for_each(|(labels, calls)| put.counter(&labels, calls.count))
        })?;
        page.each("machina_tool_call_errors", "Calls without a good answer", None, MetricType::Counter, |put| {
            tools().try_for_each(|(labels, calls)| put.errors(&labels, calls))
        })
    }

    fn of_instances(&self, page: &mut Page<'_>) -> Written {
        let mut all: Vec<(&str, String, InstanceStatistics)> = Vec::new();
        for view in self.measured.view.services() {
            let name = view.service().name().as_str();
            all.extend(view.instances().map(|(instance, seen)| (name, instance.id.to_string(), seen.statistics())));
        }
        page.each("machina_attempts", "Attempts of calls at each instance", None, MetricType::Counter, |put| {
            all.iter().filter(|(_, _, of)| of.attempts.count > 0).try_for_each(|(service, instance, of)| {
                put.counter(&vec![("service", service), ("instance", instance)], of.attempts.count)
            })
        })?;
        page.each("machina_attempt_errors", "Attempts without a good answer", None, MetricType::Counter, |put| {
            all.iter().try_for_each(|(service, instance, of)| {
                put.errors(&vec![("service", service), ("instance", instance)], &of.attempts)
            })
        })?;
        let what = "Bytes of the requests of attempts, and of their answers";
        page.each("machina_attempt_bytes", what, None, MetricType::Counter, |put| {
            all.iter().filter(|(_, _, of)| of.bytes_sent > 0).try_for_each(|(service, instance, of)| {
                [("sent", of.bytes_sent), ("received", of.bytes_received)].into_iter().try_for_each(|(way, bytes)| {
                    put.counter(&vec![("service", service), ("instance", instance), ("direction", way)], bytes)
                })
            })
        })?;
        page.each("machina_probes", "Probes of each instance by outcome", None, MetricType::Counter, |put| {
            all.iter().try_for_each(|(service, instance, of)| {
                of.probes.iter().filter(|(_, count)| **count > 0).try_for_each(|(outcome, count)| {
                    put.counter(&vec![("service", service), ("instance", instance), ("outcome", outcome)], *count)
                })
            })
        })
    }
}

/// What is being written.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
    omitted: u64,
}

impl Page<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        what: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.encoder.encode_descriptor(name, what, unit, kind)
    }

    /// One number without labels.
    fn gauge(&mut self, name: &str, what: &str, value: u64) -> Written {
        self.family(name, what, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// All the series of one name.
    fn each(
        &mut self,
        name: &str,
        what: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        write: impl FnOnce(&mut Series<'_>) -> Written,
    ) -> Written {
        let encoder = self.encoder.encode_descriptor(name, what, unit, kind)?;
        let mut series = Series { encoder, count: 0 };
        write(&mut series)?;
        self.omitted += series.count.saturating_sub(SERIES_MAX) as u64;
        Ok(())
    }
}

/// The series of one name.
struct Series<'a> {
    encoder: MetricEncoder<'a>,
    count: usize,
}

impl Series<'_> {
    fn put(&mut self, labels: &Labels<'_>, write: impl FnOnce(MetricEncoder<'_>) -> Written) -> Written {
        self.count += 1;
        if self.count > SERIES_MAX { Ok(()) } else { write(self.encoder.encode_family(labels)?) }
    }

    fn gauge(&mut self, labels: &Labels<'_>, value: u64) -> Written {
        self.put(labels, |mut one| one.encode_gauge(&value))
    }

    fn counter(&mut self, labels: &Labels<'_>, value: u64) -> Written {
        self.put(labels, |mut one| one.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    /// What is counted of calls that brought no answer, or one that says it failed.
    fn errors(&mut self, labels: &Labels<'_>, calls: &CallStatistics) -> Written {
        let by_kind = calls.errors_by_kind.iter().map(|(kind, count)| (kind.as_str(), *count));
        for (kind, count) in by_kind.chain([("tool_error", calls.tool_errors)]).filter(|(_, count)| *count > 0) {
            let mut labels = labels.clone();
            labels.push(("error_type", kind));
            self.counter(&labels, count)?;
        }
        Ok(())
    }

    fn histogram(&mut self, labels: &Labels<'_>, seconds: f64, counts: &[u64]) -> Written {
        let bounds = DURATION_BOUNDS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let count = counts.iter().sum();
        self.put(labels, |mut one| one.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None))
    }
}

/// How much memory the process has, where the system says so at the price of a look.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}
