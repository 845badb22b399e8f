// Asks about an image.
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

	data, err := os.ReadFile("photo.png")
	if err != nil {
		log.Fatal(err)
	}
	model, mimeType := "support", "image/png"
	image := &parley.ImageContent{Data: data, MimeType: &mimeType}
	answer, err := chat.CreateChatCompletion(ctx, &parley.CreateChatCompletionRequest{
		Model: &model,
		Messages: []*parley.Message{{Role: "user", Parts: []*parley.ContentPart{
			{Content: &parley.ContentPart_Text{Text: "What is this?"}},
			{Content: &parley.ContentPart_Image{Image: image}},
		}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Choices[0].Message.GetText())
}
