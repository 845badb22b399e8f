// Asks two questions in one session; the second request has only the second question.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

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

	model := "smollm2"
	var session *string
	for _, question := range []string{"What is the capital of France?", "And of Germany?"} {
		text := question
		answer, err := chat.CreateChatCompletion(ctx, &parley.CreateChatCompletionRequest{
			Model:     &model,
			SessionId: session,
			Messages:  []*parley.Message{{Role: "user", Text: &text}},
		})
		if err != nil {
			log.Fatal(err)
		}
		session = answer.SessionId
		fmt.Println(answer.Choices[0].Message.GetText())
	}
}
