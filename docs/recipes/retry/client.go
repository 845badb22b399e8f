// Streams an answer, and asks again under the same key if the stream breaks.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	parley "example.com/parley/parley/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

func main() {
	connection, err := grpc.Dial("127.0.0.1:50051", grpc.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	chat := parley.NewChatCompletionsClient(connection)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv("KEY"))

	ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", fmt.Sprintf("question-%d", time.Now().UnixNano()))

	model, question := "smollm2", "What is the capital of France?"
	request := &parley.CreateChatCompletionRequest{
		Model:    &model,
		Messages: []*parley.Message{{Role: "user", Text: &question}},
	}
	// Returns the whole answer; a program with a display shows the parts, and clears them before it asks again.
	ask := func() (text string, err error) {
		stream, err := chat.StreamChatCompletion(ctx, request)
		if err != nil {
			return "", err
		}
		for {
			chunk, err := stream.Recv()
			if err == io.EOF {
				return text, nil
			}
			if err != nil {
				return "", err
			}
			for _, choice := range chunk.Choices {
				text += choice.Delta.GetContent()
			}
		}
	}
	for attempt := 0; ; attempt++ {
		text, err := ask()
		if err == nil {
			fmt.Println(text)
			return
		}
		if attempt == 4 {
			log.Fatal(err)
		}
		time.Sleep(time.Second << attempt)
	}
}
