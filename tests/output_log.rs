//! The output log against a model that keeps everything.

#[path = "checks/output_log.rs"]
mod output_log;
#[path = "checks/random.rs"]
mod random;

use random::Random;

#[test]
fn it_keeps_what_the_limits_allow_and_counts_the_rest() {
    let mut random = Random::new(3);
    for _ in 0..200 {
        let length = random.below(400);
        let input: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        output_log::check_input(&input);
    }
}
