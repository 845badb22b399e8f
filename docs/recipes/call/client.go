// Asks a question.
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

	model, text := "smollm2", "What is the capital of France?"
	answer, err := chat.CreateChatCompletion(ctx, &parley.CreateChatCompletionRequest{
		Model:    &model,
		Messages: []*parley.Message{{Role: "user", Text: &text}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Choices[0].Message.GetText())
}
