//! Whole sessions with real commands, any requests in any order.
//!
//! One test alone in its program: it counts threads, descriptors and children.

#[path = "checks/random.rs"]
mod random;
#[path = "checks/session.rs"]
mod session;

use random::Random;
use std::path::Path;

#[test]
fn every_request_is_answered_once_and_nothing_is_left() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/session");
    // A published package comes without them.
    let seeds = std::fs::read_dir(seeds).into_iter().flatten();
    let paths: Vec<_> = seeds.map(|seed| seed.unwrap().path()).collect();
    for path in paths {
        println!("{}", path.display());
        session::check_input(&std::fs::read(&path).unwrap());
    }
    let mut random = Random::new(5);
    for _ in 0..60 {
        let length = random.below(100);
        let input: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        println!("{input:?}");
        session::check_input(&input);
    }
}
