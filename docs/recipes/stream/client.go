// Prints an answer while it arrives.
package main

import (
	"context"
	"fmt"
	"io"
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
	stream, err := chat.StreamChatCompletion(ctx, &parley.CreateChatCompletionRequest{
		Model:    &model,
		Messages: []*parley.Message{{Role: "user", Text: &text}},
	})
	if err != nil {
		log.Fatal(err)
	}
	for {
		chunk, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		for _, choice := range chunk.Choices {
			fmt.Print(choice.Delta.GetContent())
		}
	}
	fmt.Println()
}
