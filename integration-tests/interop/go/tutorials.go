package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The six programs of the RabbitMQ tutorials, each with its outcome checked.

func helloWorld(s *session) {
	sender, receiver := s.channel(), s.channel()
	queue := s.queue(sender, "queue")
	inbox := consume(receiver, queue, true)
	publish(sender, "", queue, text("hello, burrow"))
	got := receive("the greeting", inbox)
	equal("body", string(got.Body), "hello, burrow")
	equal("exchange and key", []string{got.Exchange, got.RoutingKey}, []string{"", queue})
	equal("redelivered", got.Redelivered, false)
	equal("messages left", ready(sender, queue), 0)
}

func workQueue(s *session) {
	jobs := numbered("job ", 20)
	boss := s.channel()
	queue := s.queue(boss, "queue")
	slowConnection := s.connect(amqp.Config{})
	slow, fast := value(slowConnection.Channel()), s.channel()
	must(slow.Qos(1, 0, false))
	must(fast.Qos(1, 0, false))

	slowInbox := consume(slow, queue, false)
	publish(boss, "", queue, persistent(jobs[0]))
	equal("slow worker", string(receive("the first job", slowInbox).Body), jobs[0])

	// The slow worker sits on its one job, so fair dispatch leaves all the others to its colleague.
	fastInbox := consume(fast, queue, false)
	for _, job := range jobs[1:] {
		publish(boss, "", queue, persistent(job))
	}
	for _, job := range jobs[1:] {
		got := receive("a job", fastInbox)
		equal("job", string(got.Body), job)
		equal("job is persistent and new", []any{got.DeliveryMode, got.Redelivered}, []any{amqp.Persistent, false})
		must(got.Ack(false))
	}

	// A worker that dies without acknowledging gives its job back.
	must(slowConnection.Close())
	back := receive("the job given back", fastInbox)
	equal("job given back", []any{string(back.Body), back.Redelivered}, []any{jobs[0], true})
	must(back.Ack(false))
}

func publishSubscribe(s *session) {
	publisher := s.channel()
	exchange := s.exchange(publisher, "fanout")
	connections := []*amqp.Connection{}
	inboxes := map[string]<-chan amqp.Delivery{}
	names := []string{}
	for range [3]int{} {
		connection := s.connect(amqp.Config{})
		channel := value(connection.Channel())
		queue := value(channel.QueueDeclare("", false, false, true, false, nil)).Name
		must(channel.QueueBind(queue, "", exchange, false, nil))
		if !strings.HasPrefix(queue, "amq.gen-") {
			fail("server-made name %q does not begin with amq.gen-", queue)
		}
		inboxes[queue] = consume(channel, queue, true)
		connections, names = append(connections, connection), append(names, queue)
	}
	equal("distinct server-made names", len(inboxes), 3)

	news := numbered("news ", 5)
	for _, item := range news {
		publish(publisher, exchange, "ignored", text(item))
	}
	for _, inbox := range inboxes {
		equal("received", bodies(receiveMany("the news", inbox, len(news))), news)
	}

	_, err := publisher.QueueDeclarePassive(names[0], false, false, true, false, nil)
	refused("a foreign exclusive queue", err, 405, fmt.Sprintf("RESOURCE_LOCKED - cannot obtain exclusive access to locked"+
		" queue '%s' in vhost '/'. It could be originally declared on another connection or the exclusive property value"+
		" does not match that of the original declaration.", names[0]))
	must(connections[0].Close())
	gone := s.connect(amqp.Config{})
	for giveUp := time.Now().Add(wait); ; {
		_, err = value(gone.Channel()).QueueDeclarePassive(names[0], false, false, false, false, nil)
		if closed, ok := err.(*amqp.Error); ok && closed.Code == amqp.NotFound {
			return
		}
		if time.Now().After(giveUp) {
			fail("the exclusive queue outlives its connection: %v", err)
		}
	}
}

func routing(s *session) {
	channel := s.channel()
	exchange := s.exchange(channel, "direct")
	urgent, everything := s.queue(channel, "urgent"), s.queue(channel, "everything")
	must(channel.QueueBind(urgent, "error", exchange, false, nil))
	for _, severity := range []string{"info", "warning", "error"} {
		must(channel.QueueBind(everything, severity, exchange, false, nil))
	}
	publishAll := func() {
		for _, severity := range []string{"info", "debug", "error", "warning", "errors"} {
			publish(channel, exchange, severity, text(severity))
		}
	}
	publishAll()
	equal("urgent", drain(channel, urgent), []string{"error"})
	equal("everything", drain(channel, everything), []string{"info", "error", "warning"})
	must(channel.QueueUnbind(everything, "info", exchange, nil))
	publishAll()
	equal("everything after unbind", drain(channel, everything), []string{"error", "warning"})
	equal("urgent after unbind", drain(channel, urgent), []string{"error"})
}

func topics(s *session) {
	channel := s.channel()
	exchange := s.exchange(channel, "topic")
	keys := []string{"kern.critical", "kern", "kern.info.late", "cron.critical", "audit", "audit.door.front", "door", ""}
	table := []struct {
		name               string
		patterns, expected []string
	}{
		{"kernel", []string{"kern.*"}, []string{"kern.critical"}},
		{"critical", []string{"*.critical", "kern.critical"}, []string{"kern.critical", "cron.critical"}},
		{"audit", []string{"audit.#"}, []string{"audit", "audit.door.front"}},
		{"middle", []string{"#.door.#"}, []string{"audit.door.front", "door"}},
		{"all", []string{"#"}, keys},
	}
	queues := map[string]string{}
	for _, row := range table {
		queues[row.name] = s.queue(channel, row.name)
		for _, pattern := range row.patterns {
			must(channel.QueueBind(queues[row.name], pattern, exchange, false, nil))
		}
	}
	for _, key := range keys {
		publish(channel, exchange, key, text(key))
	}
	for _, row := range table {
		equal(row.name, drain(channel, queues[row.name]), row.expected)
	}
}

// serveSquares answers two requests at a time, the later one first, so that the correlation id matters.
func serveSquares(channel *amqp.Channel, requests <-chan amqp.Delivery) {
	var earlier *amqp.Delivery
	for request := range requests {
		if earlier == nil {
			request := request
			earlier = &request
			continue
		}
		for _, asked := range []amqp.Delivery{request, *earlier} {
			number, _ := strconv.Atoi(string(asked.Body))
			reply := amqp.Publishing{CorrelationId: asked.CorrelationId, Body: []byte(strconv.Itoa(number * number))}
			// A publish that fails shows on the client's side as a reply that never comes.
			_ = channel.Publish("", asked.ReplyTo, false, false, reply)
			_ = asked.Ack(false)
		}
		earlier = nil
	}
}

func rpc(s *session) {
	server, client := s.channel(), s.channel()
	requests := s.name("requests")
	_ = value(server.QueueDeclare(requests, false, false, true, false, nil))
	go serveSquares(server, consume(server, requests, false))

	callback := value(client.QueueDeclare("", false, false, true, false, nil)).Name
	replies := consume(client, callback, true)
	expected := map[string]string{}
	for number := 2; number < 8; number++ {
		id := fmt.Sprintf("call-%d", number)
		expected[id] = strconv.Itoa(number * number)
		publish(client, "", requests, amqp.Publishing{CorrelationId: id, ReplyTo: callback, Body: []byte(strconv.Itoa(number))})
	}
	answers := map[string]string{}
	order := []string{}
	for _, reply := range receiveMany("a reply", replies, len(expected)) {
		answers[reply.CorrelationId] = string(reply.Body)
		order = append(order, reply.CorrelationId)
	}
	equal("answers", answers, expected)
	equal("first replies", order[:2], []string{"call-3", "call-2"})
}
