//! What it costs to make a frame's bytes: `cargo bench -p muster-proto`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use muster_model::{
    AgentId, Fence, FrameworkId, Offer, OfferId, Resources, Role, SchedulerEvent, Sealed, Term, Value,
    event::OfferWithAgent,
};
use muster_proto::scheduler_down_bytes;

const OFFERS: usize = 100;

fn offer(n: usize) -> OfferWithAgent {
    OfferWithAgent {
        offer: Offer {
            offer_id: OfferId::new(format!("3f0c1d2e5b6a4978-O1-0-{n}")),
            framework_id: FrameworkId::new("3f0c1d2e5b6a4978-0001"),
            role: Role::any(),
            agent_id: AgentId::new(format!("3f0c1d2e5b6a4978-S{n}")),
            resources: Resources::of(24_000, 4_096).with("ports", Value::ranges([(31_000, 32_000)])).into(),
        },
        hostname: format!("agent-{n}").as_str().into(),
        port: 5051,
        agent: Sealed::new(vec![7; 100]),
        unavailability: None,
        executor_ids: Vec::new(),
    }
}

fn offers(c: &mut Criterion) {
    let event = SchedulerEvent::Offers((0..OFFERS).map(offer).collect());
    let fence = Fence { incarnation: 1, term: Term(1) };
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(OFFERS as u64));
    group.bench_function("offers", |b| b.iter(|| scheduler_down_bytes(fence, &event)));
    group.finish();
}

criterion_group!(benches, offers);
criterion_main!(benches);
