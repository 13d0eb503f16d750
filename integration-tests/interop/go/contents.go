package main

import (
	"bytes"
	"fmt"
	"reflect"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Settling and fetching single messages, and what a message carries.

func requeue(s *session) {
	channel := s.channel()
	queue := s.queue(channel, "queue")
	taken := []amqp.Delivery{}
	for _, body := range []string{"a", "b", "c"} {
		publish(channel, "", queue, text(body))
		taken = append(taken, get(channel, queue, false))
	}
	must(taken[1].Nack(false, true))
	must(taken[2].Reject(false))
	must(taken[0].Nack(false, true))
	inbox := consume(channel, queue, false)
	for _, body := range []string{"a", "b"} {
		got := receive("a requeued message", inbox)
		equal("requeued", []any{string(got.Body), got.Redelivered}, []any{body, true})
	}
	must(channel.Recover(true))
	again := receiveMany("a recovered message", inbox, 2)
	equal("recovered", bodies(again), []string{"a", "b"})
	must(again[1].Ack(true))
	equal("messages left", ready(channel, queue), 0)
}

func get(channel *amqp.Channel, queue string, autoAck bool) amqp.Delivery {
	delivery, found, err := channel.Get(queue, autoAck)
	must(err)
	equal("found", found, true)
	return delivery
}

func basicGet(s *session) {
	channel := s.channel()
	queue := s.queue(channel, "queue")
	_, found, err := channel.Get(queue, true)
	must(err)
	equal("empty queue", found, false)
	for _, body := range []string{"one", "two", "three"} {
		publish(channel, "", queue, text(body))
	}
	first := get(channel, queue, true)
	equal("first", []any{string(first.Body), first.MessageCount, first.RoutingKey}, []any{"one", uint32(2), queue})
	second := get(channel, queue, false)
	equal("second", []any{string(second.Body), second.MessageCount}, []any{"two", uint32(1)})
	equal("purged", value(channel.QueuePurge(queue, false)), 1)
	must(second.Nack(false, true))
	again := get(channel, queue, true)
	equal("second again", []any{string(again.Body), again.Redelivered}, []any{"two", true})
	equal("deleted with", value(channel.QueueDelete(queue, false, false, false)), 0)
}

func properties(s *session) {
	channel := s.channel()
	queue := s.queue(channel, "queue")
	sent := amqp.Publishing{
		ContentType:     "application/json",
		ContentEncoding: "utf-8",
		Headers: amqp.Table{
			"text": "čeština 🐇", "empty": "", "flag": true,
			"byte": byte(200), "int8": int8(-7), "int16": int16(-700), "int32": int32(-70_000), "int64": int64(1 << 40),
			"float32": float32(1.5), "float64": 3.25, "price": amqp.Decimal{Scale: 2, Value: 1234},
			"when": time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC).Local(), "raw": []byte{0, 255}, "nothing": nil,
			"list":  []any{int32(1), "two", []any{3.5, false}, amqp.Table{"four": int32(4)}},
			"table": amqp.Table{"inner": amqp.Table{"deep": "yes"}, "": "empty name"},
		},
		DeliveryMode:  amqp.Persistent,
		Priority:      9,
		CorrelationId: "correlation",
		ReplyTo:       "reply.queue",
		Expiration:    "600000",
		MessageId:     "id-1",
		Timestamp:     time.Unix(1_700_000_000, 0),
		Type:          "kind",
		UserId:        s.user(),
		AppId:         "interop",
		Body:          []byte("{}"),
	}
	publish(channel, "", queue, sent)
	publish(channel, "", queue, text("bare"))
	// A delivery has fields of the same names; those are compared.
	for _, expected := range []amqp.Publishing{sent, text("bare")} {
		received := reflect.ValueOf(get(channel, queue, true))
		wanted := reflect.ValueOf(expected)
		for index := 0; index < wanted.NumField(); index++ {
			field := wanted.Type().Field(index).Name
			equal(field, received.FieldByName(field).Interface(), wanted.Field(index).Interface())
		}
	}
}

func largeMessage(s *session) {
	for _, frameMax := range []int{8192, 131072} {
		channel := value(s.connect(amqp.Config{FrameSize: frameMax}).Channel())
		queue := s.queue(channel, "queue")
		inbox := consume(channel, queue, true)
		sizes := []int{1 << 20, 0, frameMax - 8, frameMax - 7}
		for _, size := range sizes {
			publish(channel, "", queue, amqp.Publishing{Body: pattern(size)})
		}
		for _, size := range sizes {
			got := receive("a large message", inbox)
			equal(fmt.Sprintf("size at frame_max %d", frameMax), len(got.Body), size)
			equal(fmt.Sprintf("content of %d bytes at frame_max %d", size, frameMax), bytes.Equal(got.Body, pattern(size)), true)
		}
	}
}
