//! What an error of the broker means, and what an operator can do about it.

use std::error::Error as _;

use lapin::ErrorKind;

/// AMQP's reply code for a login or an access that is refused.
pub(super) const ACCESS_REFUSED: u16 = 403;
/// AMQP's reply code for an exchange or a queue that does not exist.
pub(super) const NOT_FOUND: u16 = 404;
/// AMQP's reply code for an object that is there with other arguments, and for arguments that mean
/// nothing.
pub(super) const PRECONDITION_FAILED: u16 = 406;
/// AMQP's reply code for a virtual host that does not exist, or is closed to the user.
const NOT_ALLOWED: u16 = 530;

/// Text of an error, for an operator, on one line: the broker's reply and what to do, or what went
/// wrong and its causes.
pub(super) fn explain(error: &lapin::Error) -> String {
    if let ErrorKind::ProtocolError(reply) = error.kind() {
        let text = reply.get_message().as_str();
        return match advice(reply.get_id(), text) {
            Some(advice) => format!("{text}: {advice}"),
            None => text.to_owned(),
        };
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The broker's reply code, if the error is a reply of its.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(reply) => Some(reply.get_id()),
        _ => None,
    }
}

/// Text of an alarm, for an operator.
pub(super) fn alarm(reason: &str) -> String {
    format!("broker alarm: {reason}")
}

fn advice(code: u16, text: &str) -> Option<&'static str> {
    match code {
        NOT_FOUND => Some("run `clerk-sync setup`"),
        // Brokers before 3.12 do not tell which access they refused. A process publishes to
        // exchanges and consumes queues; only `setup` does more, and all of it.
        ACCESS_REFUSED if text.contains("access to exchange") => Some(
            "the user needs permission to write (`clerk-sync setup`: to configure, write and \
             read), see deploy/rabbitmq/users.sh",
        ),
        ACCESS_REFUSED if text.contains("access to queue") => Some(
            "the user needs permission to read (`clerk-sync setup`: to configure, write and \
             read), see deploy/rabbitmq/users.sh",
        ),
        ACCESS_REFUSED => Some("are the user and the password in AMQP_URL right?"),
        NOT_ALLOWED => Some(
            "does the virtual host in AMQP_URL exist, and has the user permissions on it \
             (deploy/rabbitmq/users.sh)?",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

    use super::*;

    fn explained(kind: impl Into<AMQPErrorKind>, text: &str) -> String {
        let reply = AMQPError::new(kind.into(), text.into());
        explain(&ErrorKind::ProtocolError(reply).into())
    }

    #[test]
    fn a_refusal_tells_which_permission_is_missing_and_where_it_is_given() {
        // RabbitMQ 3.10, and 4.x.
        for text in [
            "ACCESS_REFUSED - access to exchange 'clerk.events' in vhost '/' refused for user 'x'",
            "ACCESS_REFUSED - write access to exchange 'clerk.events' in vhost '/' refused for user 'x'",
        ] {
            let explained = explained(AMQPSoftError::ACCESSREFUSED, text);
            assert!(explained.starts_with(text), "{explained}");
            assert!(explained.contains("permission to write"), "{explained}");
            assert!(
                explained.contains("deploy/rabbitmq/users.sh"),
                "{explained}"
            );
        }
        let queue =
            "ACCESS_REFUSED - access to queue 'clerk.apply' in vhost '/' refused for user 'x'";
        let queue = explained(AMQPSoftError::ACCESSREFUSED, queue);
        assert!(queue.contains("permission to read"), "{queue}");
    }

    #[test]
    fn a_login_and_a_virtual_host_are_not_taken_for_a_permission() {
        let login = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.";
        let login = explained(AMQPSoftError::ACCESSREFUSED, login);
        assert!(login.contains("password in AMQP_URL"), "{login}");
        let vhost = explained(
            AMQPHardError::NOTALLOWED,
            "NOT_ALLOWED - vhost nope not found",
        );
        assert!(vhost.contains("virtual host"), "{vhost}");
    }
}
