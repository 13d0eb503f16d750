package main

import (
	"context"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Publisher confirms: one at a time, in batches and asynchronously; and what mandatory adds to them.

func confirmed(confirmation *amqp.DeferredConfirmation) {
	deadline, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	equal("confirmed", value(confirmation.WaitContext(deadline)), true)
}

func deferred(channel *amqp.Channel, queue, body string) *amqp.DeferredConfirmation {
	return value(channel.PublishWithDeferredConfirm("", queue, false, false, persistent(body)))
}

func confirmsIndividual(s *session) {
	channel := s.channel()
	queue := s.queue(channel, "queue")
	must(channel.Confirm(false))
	for number := 0; number < 20; number++ {
		confirmed(deferred(channel, queue, strconv.Itoa(number)))
		equal("messages ready", ready(channel, queue), number+1)
	}
	equal("stored", drain(channel, queue), numbered("", 20))
}

func confirmsBatch(s *session) {
	channel := s.channel()
	queue := s.queue(channel, "queue")
	must(channel.Confirm(false))
	for batch := 0; batch < 4; batch++ {
		confirmations := []*amqp.DeferredConfirmation{}
		for number := 0; number < 50; number++ {
			confirmations = append(confirmations, deferred(channel, queue, strconv.Itoa(batch*50+number)))
		}
		for _, confirmation := range confirmations {
			confirmed(confirmation)
		}
		equal("messages ready", ready(channel, queue), (batch+1)*50)
	}
	equal("stored", drain(channel, queue), numbered("", 200))
}

func confirmsAsync(s *session) {
	const total = 500
	channel := s.channel()
	queue := s.queue(channel, "queue")
	must(channel.Confirm(false))
	confirmations := channel.NotifyPublish(make(chan amqp.Confirmation, total))
	for number := 0; number < total; number++ {
		publish(channel, "", queue, persistent(strconv.Itoa(number)))
	}
	// The client spreads an acknowledgement of many over its tags, in order.
	for tag := uint64(1); tag <= total; tag++ {
		equal("confirmation", receive("a confirm", confirmations), amqp.Confirmation{DeliveryTag: tag, Ack: true})
	}
	equal("stored", drain(channel, queue), numbered("", total))
}

func mandatoryReturn(s *session) {
	channel := s.channel()
	queue := s.queue(channel, "queue")
	exchange := s.exchange(channel, "direct")
	must(channel.QueueBind(queue, "known", exchange, false, nil))
	must(channel.Confirm(false))
	returns := channel.NotifyReturn(make(chan amqp.Return, 3))
	post := func(key, body string, mandatory bool) {
		message := amqp.Publishing{Type: "post", Body: []byte(body)}
		confirmed(value(channel.PublishWithDeferredConfirm(exchange, key, mandatory, false, message)))
	}
	post("known", "arrives", true)
	post("unknown", "vanishes", false)
	equal("returns so far", len(returns), 0)
	post("unknown", "comes back", true)
	// The return comes before the confirm, so it must be here already.
	equal("returns", len(returns), 1)
	back := receive("the return", returns)
	equal("reply", []any{back.ReplyCode, back.ReplyText}, []any{uint16(amqp.NoRoute), "NO_ROUTE"})
	got := []string{back.Exchange, back.RoutingKey, back.Type, string(back.Body)}
	equal("returned", got, []string{exchange, "unknown", "post", "comes back"})
	equal("routed", drain(channel, queue), []string{"arrives"})
}
