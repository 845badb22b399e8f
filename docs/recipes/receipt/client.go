// Prints the tokens of an answer, and where it came from.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	parley "example.com/parley/parley/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
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
	var trailer metadata.MD
	answer, err := chat.CreateChatCompletion(ctx, &parley.CreateChatCompletionRequest{
		Model:    &model,
		Messages: []*parley.Message{{Role: "user", Text: &text}},
	}, grpc.Trailer(&trailer))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Usage.GetTotalTokens(), "tokens")

	receipt := &parley.Receipt{}
	if err := proto.Unmarshal([]byte(trailer.Get("parley-receipt-bin")[0]), receipt); err != nil {
		log.Fatal(err)
	}
	for _, attempt := range receipt.Attempts {
		fmt.Println(attempt.Model, attempt.Outcome)
	}
}
