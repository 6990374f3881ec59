//! The queue of input against a model that keeps everything.

#[path = "checks/random.rs"]
mod random;
#[path = "checks/stdin_queue.rs"]
mod stdin_queue;

use random::Random;

#[test]
fn bytes_keep_their_order_and_every_write_has_one_answer() {
    let mut random = Random::new(4);
    for _ in 0..80 {
        let length = random.below(400);
        let input: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        stdin_queue::check_input(&input);
    }
}
