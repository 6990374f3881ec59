//! What the output log must do, told by a model that keeps everything.

use exec_server::process::{BLOCK_BYTES, Block, Bytes, Event, Exit, OutputLog, Retention, Stream};

/// Output that is evicted beyond this many events may be counted generously.
const COUNTED_EXACTLY: usize = 512;

/// An event as the model keeps it: output by its length, each byte being [`fill`] of its number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    Output(Stream, usize),
    Exited(Exit),
    Closed,
}

fn fill(seq: u64) -> u8 {
    (seq % 251) as u8
}

impl Kept {
    fn bytes(self) -> usize {
        if let Kept::Output(_, bytes) = self { bytes } else { 0 }
    }
}

struct Checked {
    log: OutputLog,
    limits: Retention,
    /// Every event there ever was; number 1 is the first.
    events: Vec<Kept>,
    /// The number of the first that must still be there.
    base: u64,
    taken: Option<u64>,
    acked: u64,
    exit: Option<Exit>,
    closed: bool,
    evicted_outputs: usize,
}

/// Carries out what `input` describes, a byte for each limit and then a byte or two for each step, and panics where the
/// log and the model disagree. The highest bit of the second byte says that output is acknowledged.
pub(crate) fn check_input(input: &[u8]) {
    let [bytes, events, credit, steps @ ..] = input else {
        return;
    };
    // From nothing to some blocks, with all small limits.
    let size = |limit: u8| match limit {
        small @ 0..128 => usize::from(small),
        large => usize::from(large - 127) * 3000,
    };
    let limits = Retention {
        bytes: size(*bytes),
        events: usize::from(*events & 127) * 4,
        credit: size(*credit),
        ack_window: (*events > 127).then_some(size(*bytes) / 2),
    };
    let mut checked = Checked {
        log: OutputLog::new(limits),
        limits,
        events: Vec::new(),
        base: 1,
        taken: None,
        acked: 0,
        exit: None,
        closed: false,
        evicted_outputs: 0,
    };
    let mut steps = steps.iter();
    while let Some(step) = steps.next() {
        let mut argument = || steps.next().copied().unwrap_or_default();
        match step % 16 {
            0..=2 => checked.append_small(*step, usize::from(argument())),
            3 => checked.append_large(*step, usize::from(argument())),
            4 => (0..argument()).for_each(|n| checked.append_small(n, 1)),
            5 => checked.exited(argument()),
            6 => checked.close(),
            7 => checked.attach(),
            8 => checked.detach(),
            9..=10 => checked.take(1),
            11 => {
                let seq = checked.number(argument());
                checked.acknowledge(seq);
            }
            12 => checked.take(argument().into()),
            13 => {
                let after = checked.number(argument());
                checked.replay(after, None);
            }
            14 => {
                let after = checked.number(argument());
                checked.replay(after, Some(size(argument())));
            }
            _ => {
                let after = checked.number(argument());
                let news = checked.closed || (after as usize) < checked.events.len();
                assert_eq!(checked.log.has_news(after), news);
            }
        }
        checked.compare();
    }
    checked.replay(0, None);
}

impl Checked {
    fn stream(step: u8) -> Stream {
        [Stream::Stdout, Stream::Stderr, Stream::Pty][usize::from(step) % 3]
    }

    fn append_small(&mut self, step: u8, len: usize) {
        let bytes = vec![fill(self.log.next_seq()); len];
        self.append(Self::stream(step), Bytes::from(&bytes[..]));
    }

    /// Output that stays in its block, which may be one that the log has given back.
    fn append_large(&mut self, step: u8, size: usize) {
        let len = (BLOCK_BYTES / 2 + size * 129).min(BLOCK_BYTES);
        let spare = self.log.spare_block();
        assert!(!self.closed || spare.is_none());
        let mut block = spare.unwrap_or_else(|| Block::new().expect("a block"));
        block.space()[..len].fill(fill(self.log.next_seq()));
        self.append(Self::stream(step), block.take(len).0);
    }

    fn append(&mut self, stream: Stream, bytes: Bytes) {
        if !self.closed {
            self.events.push(Kept::Output(stream, bytes.len()));
            self.log.append(stream, bytes);
            self.evict();
        }
    }

    fn exited(&mut self, code: u8) {
        if !self.closed && self.exit.is_none() {
            let exit = Exit {
                code: code.into(),
                signal: (code > 128).then(|| i32::from(code) - 128),
                sandbox_denied: false,
                failure: None,
                limit_met: None,
            };
            self.exit = Some(exit);
            self.events.push(Kept::Exited(exit));
            self.log.exited(exit);
            self.evict();
        }
    }

    fn close(&mut self) {
        if !self.closed && self.exit.is_some() {
            self.closed = true;
            self.events.push(Kept::Closed);
            self.log.close();
            self.evict();
        }
    }

    fn attach(&mut self) {
        self.log.attach();
        self.taken = Some(self.events.len() as u64);
        self.evict();
    }

    fn detach(&mut self) {
        self.log.detach();
        self.taken = None;
        self.evict();
    }

    fn acknowledge(&mut self, seq: u64) {
        self.log.acknowledge(seq);
        if self.limits.ack_window.is_some() {
            self.acked = self.acked.max(seq.min(self.events.len() as u64));
        }
        self.evict();
    }

    /// The next event that may be taken: what has bytes only while no more than the window is in flight with it, unless
    /// it is alone.
    fn expected(&self) -> Option<Kept> {
        let taken = self.taken?;
        let event = *self.events.get(taken as usize)?;
        let in_flight: usize = self.events[self.acked.min(taken) as usize..taken as usize]
            .iter()
            .map(|e| e.bytes())
            .sum();
        let is_held_back = |window| event.bytes() > 0 && in_flight > 0 && in_flight + event.bytes() > window;
        (!self.limits.ack_window.is_some_and(is_held_back)).then_some(event)
    }

    /// In order, none twice, none left out.
    fn take(&mut self, most: usize) {
        for _ in 0..most {
            let expected = self.expected();
            assert_eq!(self.log.has_untaken(), expected.is_some());
            let taken = self.log.take();
            assert_eq!(taken.is_some(), expected.is_some());
            let (Some((seq, event)), Some(expected)) = (taken, expected) else {
                return;
            };
            self.taken = Some(seq);
            match (event, expected) {
                (Event::Output(stream, bytes), Kept::Output(..)) => {
                    assert_eq!(Kept::Output(stream, bytes.len()), expected);
                    self.is_the_output(seq, &bytes);
                }
                (Event::Exited(exit), Kept::Exited(_)) => assert_eq!(Kept::Exited(exit), expected),
                (Event::Closed, Kept::Closed) => {}
                _ => panic!("event {seq} is not {expected:?}"),
            }
            self.evict();
            self.compare();
        }
    }

    fn is_the_output(&self, seq: u64, bytes: &[u8]) {
        assert_eq!(self.events[seq as usize - 1].bytes(), bytes.len());
        assert!(bytes.iter().all(|byte| *byte == fill(seq)), "output {seq} is another's");
    }

    /// Goes as far as the limits ask for and an attached client, or one that acknowledges, allows, and no further.
    fn evict(&mut self) {
        let mut bytes: usize = self.events[self.base as usize - 1..].iter().map(|e| e.bytes()).sum();
        let acked = self.limits.ack_window.map_or(u64::MAX, |_| self.acked);
        let last = self.taken.unwrap_or(u64::MAX).min(acked);
        while self.base as usize <= self.events.len()
            && self.base <= last
            && (bytes > self.limits.bytes || self.events.len() + 1 - self.base as usize > self.limits.events)
        {
            let evicted = self.events[self.base as usize - 1];
            bytes -= evicted.bytes();
            self.evicted_outputs += usize::from(matches!(evicted, Kept::Output(..)));
            self.base += 1;
        }
    }

    /// A number near those that matter, or far off.
    fn number(&self, argument: u8) -> u64 {
        match argument {
            0..100 => argument.into(),
            100..150 => (self.base + 25).saturating_sub(argument.into()),
            150..250 => (self.events.len() as u64 + 200).saturating_sub(argument.into()),
            _ => u64::MAX - u64::from(255 - argument),
        }
    }

    fn replay(&self, after: u64, max_bytes: Option<usize>) {
        let replay = self.log.replay(after, max_bytes);
        let mut expected = Vec::new();
        let mut total = 0;
        for (seq, event) in (1..).zip(&self.events) {
            let Kept::Output(stream, bytes) = *event else { continue };
            if seq <= after || seq < self.base {
                continue;
            }
            total += bytes;
            if !expected.is_empty() && max_bytes.is_some_and(|max| total > max) {
                break;
            }
            expected.push((seq, stream, bytes));
        }
        let found: Vec<_> = replay.chunks.iter().map(|(seq, s, b)| (*seq, *s, b.len())).collect();
        assert_eq!(found, expected);
        for (seq, _, bytes) in &replay.chunks {
            self.is_the_output(*seq, bytes);
        }
        let next = self.events.len() as u64 + 1;
        let last = expected.last().filter(|_| max_bytes.is_some());
        assert_eq!(replay.next_seq, last.map_or(next, |(seq, ..)| seq + 1));
        assert_eq!(
            (replay.first_seq, replay.exit, replay.closed),
            (self.base, self.exit, self.closed)
        );
        let lost: usize = (1..self.base)
            .zip(&self.events)
            .filter(|(seq, _)| *seq > after)
            .map(|(_, event)| event.bytes())
            .sum();
        assert!(replay.lost_bytes >= lost as u64, "a loss is understated");
        if self.limits.ack_window.is_some() && after >= self.acked {
            assert_eq!(replay.lost_bytes, 0, "what was not acknowledged is lost");
        }
        if self.evicted_outputs <= COUNTED_EXACTLY || after.saturating_add(1) >= self.base {
            assert_eq!(replay.lost_bytes, lost as u64);
        }
    }

    fn compare(&self) {
        assert_eq!(self.log.next_seq(), self.events.len() as u64 + 1);
        assert_eq!((self.log.exit(), self.log.is_closed()), (self.exit, self.closed));
        let retained: usize = self.events[self.base as usize - 1..].iter().map(|e| e.bytes()).sum();
        assert_eq!(self.log.retained_bytes(), retained);
        let untaken = self.taken.map_or(&[][..], |taken| &self.events[taken as usize..]);
        let is_told = match self.taken {
            Some(_) => untaken.is_empty(),
            None => self.limits.ack_window.is_none(),
        };
        assert_eq!(self.log.is_told(), is_told);
        let untaken_bytes: usize = untaken.iter().map(|e| e.bytes()).sum();
        let unacked = self
            .limits
            .ack_window
            .map_or(&[][..], |_| &self.events[self.acked as usize..]);
        let unacked_bytes: usize = unacked.iter().map(|e| e.bytes()).sum();
        let most = self.limits.bytes.max(untaken_bytes).max(unacked_bytes);
        assert!(retained <= most, "too much is retained");
        assert_eq!(self.log.has_untaken(), self.expected().is_some());
        let credit = untaken_bytes < self.limits.credit
            && untaken.len() < self.limits.events
            && unacked_bytes < self.limits.bytes.max(1)
            && unacked.len() < self.limits.events.max(1);
        assert_eq!(self.log.has_credit(), credit);
    }
}
