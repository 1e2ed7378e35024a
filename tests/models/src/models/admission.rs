//! Who is let in: turns, permits of streams, connections.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use loom::future::block_on;
use loom::thread;

use crate::metrics::gauge;
use crate::stream::connections::Connections;
use crate::stream::permits::{Permit, Permits, Refusal};
use crate::stream::turns::Turns;

use crate::models::common::{Counted, client, owner};

pub(super) fn turns() {
    let turns = Arc::new(Turns::new(1));
    let users = Counted::new(1);
    let first = block_on(turns.take(client(1)));
    users.add(1);
    let leaver = {
        let turns = Arc::clone(&turns);
        let mut waiting = Box::pin(async move { turns.take(client(2)).await });
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        // It leaves before, while or after the turn comes.
        thread::spawn(move || drop(waiting))
    };
    let stayer = {
        let (turns, users) = (Arc::clone(&turns), users.clone());
        thread::spawn(move || {
            let turn = block_on(turns.take(client(3)));
            users.add(1);
            users.sub(1);
            drop(turn);
        })
    };
    users.sub(1);
    drop(first);
    leaver.join().unwrap();
    stayer.join().unwrap();
    // The turn is there at once, and not with a client that has left.
    let mut again = pin!(turns.take(client(1)));
    assert!(again.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

pub(super) fn turns_in_turn() {
    let turns = Turns::new(1);
    let first = block_on(turns.take(client(1)));
    let noop = &mut Context::from_waker(Waker::noop());
    let mut waiting = [1, 1, 2].map(|number| Some(Box::pin(turns.take(client(number)))));
    for waiting in waiting.iter_mut().flatten() {
        assert!(waiting.as_mut().poll(noop).is_pending());
    }
    let other = thread::spawn(move || drop(first));
    for next in [0, 2, 1] {
        let turn = block_on(waiting[next].take().unwrap());
        for waiting in waiting.iter_mut().flatten() {
            assert!(waiting.as_mut().poll(noop).is_pending(), "there is one turn");
        }
        drop(turn);
    }
    other.join().unwrap();
}

/// Three that are let in, or not, and stay.
pub(super) fn permits() {
    let permits = Arc::new(Permits::new(2, 1));
    let take = |number: u8| {
        let permits = Arc::clone(&permits);
        move || permits.take(owner(number, 0)).ok()
    };
    let others = [1, 1].map(|number| thread::spawn(take(number)));
    let third = take(2)();
    let of_client = others.map(|other| other.join().unwrap());
    assert_eq!(of_client.iter().flatten().count(), 1, "a client has one, and has it for sure");
    assert!(third.is_some() && permits.taken() == 2);
    assert_eq!(permits.take(owner(3, 0)).err(), Some(Refusal::All));
    drop((third, of_client));
    assert_eq!(permits.taken(), 0);
    let all = [permits.take(owner(1, 1)), permits.take(owner(2, 2))];
    assert!(all.iter().all(Result::is_ok));
}

/// Two streams of a client that count their memory, and end.
pub(super) fn memory_of_permits() {
    let permits = Arc::new(Permits::new(3, 2));
    let [first, second] = [0, 1].map(|stream| permits.take(owner(1, stream)).unwrap());
    let charge = |mut permit: Permit| {
        move || {
            assert_eq!(permit.charge(3, 6), Ok(()), "there is enough for both");
            assert!(permit.charge(4, 6).is_err(), "and no more, beside its own");
        }
    };
    let other = thread::spawn(charge(first));
    charge(second)();
    other.join().unwrap();
    assert_eq!(permits.taken(), 0);
    let [mut first, mut second] = [2, 3].map(|stream| permits.take(owner(1, stream)).unwrap());
    assert_eq!((first.charge(7, 6), second.charge(1, 6)), (Ok(()), Err(7)), "a client may always have one");
}

pub(super) fn connections() {
    let active = gauge();
    let connections = Arc::new(Connections::new(1, 1, active.clone()));
    let open = Counted::new(1);
    let visit = |connections: Arc<Connections>, open: Counted| {
        let served = connections.open(client(1)).ok()?;
        open.add(1);
        let upgraded = served.clone();
        Some((served, upgraded, open))
    };
    let close = |visit: Option<(_, _, Counted)>| {
        let Some((served, upgraded, open)) = visit else { return };
        let other = thread::spawn(move || drop(upgraded));
        open.sub(1);
        drop(served);
        other.join().unwrap();
    };
    let other = {
        let (connections, open) = (Arc::clone(&connections), open.clone());
        thread::spawn(move || close(visit(connections, open)))
    };
    close(visit(Arc::clone(&connections), open));
    other.join().unwrap();
    assert_eq!(active.get(), 0);
    assert!(connections.open(client(1)).is_ok());
}
