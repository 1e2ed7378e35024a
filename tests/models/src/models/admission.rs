//! Who is let in: turns, permits of streams, connections.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::thread;

use crate::metrics::gauge;
use crate::stream::connections::Connections;
use crate::stream::permits::Permits;
use crate::stream::turns::Turns;

use crate::models::common::{Counted, client, owner};

pub(super) fn turns() {
    let turns = Arc::new(Turns::new(1));
    let users = Counted::new(1);
    let first = block_on(turns.take(client(1)));
    users.add(1);
    let leaver = {
        let (turns, users) = (Arc::clone(&turns), users.clone());
        thread::spawn(move || {
            let mut waiting = pin!(turns.take(client(2)));
            if let Poll::Ready(turn) = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                users.add(1);
                users.sub(1);
                drop(turn);
            }
            // It leaves here: before, while or after the turn comes.
        })
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
    // The turn is there at once, and not with somebody who has left.
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

pub(super) fn permits() {
    let permits = Arc::new(Permits::new(2, 1));
    let (streams, of_client) = (Counted::new(2), Counted::new(1));
    let take = |number: u8| {
        let (permits, streams, of_client) = (Arc::clone(&permits), streams.clone(), of_client.clone());
        move || {
            let Ok(mut permit) = permits.take(owner(number, 0)) else { return };
            streams.add(1);
            if number == 1 {
                of_client.add(1);
            }
            assert_eq!(permit.charge(7, 5), Ok(()), "a client may always have one");
            if number == 1 {
                of_client.sub(1);
            }
            streams.sub(1);
        }
    };
    let others = [thread::spawn(take(1)), thread::spawn(take(1))];
    take(2)();
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!(permits.taken(), 0);
    let all = [permits.take(owner(1, 1)), permits.take(owner(2, 2))];
    assert!(all.iter().all(Result::is_ok));
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
