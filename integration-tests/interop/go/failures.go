package main

import (
	"fmt"
	"net"
	"net/url"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What the broker says when something goes wrong, and how a client carries on.

func consumerCancel(s *session) {
	channel, other := s.channel(), s.channel()
	queue := s.queue(other, "queue")
	cancels := channel.NotifyCancel(make(chan string, 1))
	inbox := value(channel.Consume(queue, "reader", true, false, false, false, nil))
	publish(other, "", queue, text("last words"))
	receive("the message", inbox)
	_ = value(other.QueueDelete(queue, false, false, false))
	equal("cancelled consumer", receive("the cancel notification", cancels), "reader")
	if _, open := <-inbox; open {
		fail("a delivery after the cancel")
	}
	// The channel survives it.
	next := s.queue(channel, "next")
	publish(channel, "", next, text("still here"))
	equal("after the cancel", drain(channel, next), []string{"still here"})
}

func channelError(s *session) {
	connection := s.connect(amqp.Config{})
	queue := s.queue(value(connection.Channel()), "queue")

	_, err := value(connection.Channel()).QueueDeclarePassive("interop.missing", true, false, false, false, nil)
	refused("a missing queue", err, 404, "NOT_FOUND - no queue 'interop.missing' in vhost '/'")
	_, err = value(connection.Channel()).QueueDeclare(queue, false, false, false, false, nil)
	refused("another durability", err, 406, fmt.Sprintf("PRECONDITION_FAILED - inequivalent arg 'durable' for queue '%s'"+
		" in vhost '/': received 'false' but current is 'true'", queue))

	acking := value(connection.Channel())
	closing := acking.NotifyClose(make(chan *amqp.Error, 1))
	must(acking.Ack(7, false))
	refused("an unknown tag", receive("the close", closing), 406, "PRECONDITION_FAILED - unknown delivery tag 7")

	publishing := value(connection.Channel())
	closing = publishing.NotifyClose(make(chan *amqp.Error, 1))
	publish(publishing, "interop.missing", "", text(""))
	refused("no exchange", receive("the close", closing), 404, "NOT_FOUND - no exchange 'interop.missing' in vhost '/'")

	// The connection outlives its channels.
	channel := value(connection.Channel())
	publish(channel, "", queue, text("after errors"))
	equal("after the errors", drain(channel, queue), []string{"after errors"})
}

func connectionError(s *session) {
	connection := s.connect(amqp.Config{})
	bystander := s.channel()
	queue := s.queue(bystander, "queue")
	closing := connection.NotifyClose(make(chan *amqp.Error, 1))
	channel := value(connection.Channel())
	_ = value(channel.Consume(queue, "twin", false, false, false, false, nil))
	if _, err := channel.Consume(queue, "twin", false, false, false, false, nil); err == nil {
		fail("a second consumer of the same tag was accepted")
	}
	refused("a tag used twice", receive("the close", closing), 530, "NOT_ALLOWED - attempt to reuse consumer tag 'twin'")
	equal("closed", connection.IsClosed(), true)
	publish(bystander, "", queue, text("undisturbed"))
	equal("another connection", drain(bystander, queue), []string{"undisturbed"})

	_, err := dial(s.uri, amqp.Config{Vhost: "interop.nowhere"})
	refused("a missing vhost", err, 530, "NOT_ALLOWED - vhost interop.nowhere not found")
	wrong := value(url.Parse(s.uri))
	wrong.User = url.UserPassword(s.user(), "not the password")
	_, err = dial(wrong.String(), amqp.Config{})
	// The client puts its own text in place of the broker's.
	refused("a wrong password", err, 403, amqp.ErrCredentials.Reason)
}

func reconnect(s *session) {
	sockets := []net.Conn{}
	first := s.connect(amqp.Config{Dial: tap(&sockets)})
	channel := value(first.Channel())
	queue := s.queue(channel, "queue")
	must(channel.Confirm(false))
	for _, body := range numbered("", 5) {
		confirmed(deferred(channel, queue, body))
	}
	must(channel.Qos(2, 0, false))
	before := consume(channel, queue, false)
	taken := receiveMany("a message", before, 2)
	must(taken[0].Ack(false))
	receive("the third message", before)

	closing := first.NotifyClose(make(chan *amqp.Error, 1))
	must(sockets[0].Close())
	receive("the loss of the connection", closing)

	channel = s.channel()
	untilReady(channel, queue, 4)
	after := receiveMany("a message", consume(channel, queue, false), 4)
	// What was delivered and not acknowledged comes again, marked, at its old place.
	for number, delivery := range after {
		seen := []any{string(delivery.Body), delivery.Redelivered}
		equal("after reconnecting", seen, []any{fmt.Sprint(number + 1), number < 2})
	}
	must(after[3].Ack(true))
	equal("messages left", ready(channel, queue), 0)
}
