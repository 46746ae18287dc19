//! How much is where: a look at the whole queue, for whoever watches it.

/// How many events are where, as far as the queue tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// Ready to be handed out.
    pub ready: u64,
    /// Waiting out a delay on some rung of the retry ladder.
    pub delayed: u64,
    /// Handed out and not answered; RabbitMQ does not tell over AMQP.
    pub in_flight: Option<u64>,
    /// Dead letters, those left out that an operator has in hand.
    pub dead: u64,
    /// What found no queue: an alarm if it is not 0.
    pub unrouted: u64,
}
