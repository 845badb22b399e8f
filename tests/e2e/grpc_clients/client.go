// Calls Parley from Go with the code that protoc-gen-go and protoc-gen-go-grpc generate from protos/. Prints JSON.
package main

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // for healthCheckConfig
	"google.golang.org/grpc/metadata"
	parley "example.com/parley/parley/v1"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	config, err := os.ReadFile(os.Getenv("PROTOS") + "/parley/v1/parley_grpc_service_config.json")
	check(err)
	connection, err := grpc.Dial(os.Getenv("PARLEY_GRPC"), grpc.WithInsecure(), grpc.WithDefaultServiceConfig(string(config)))
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("KEY"))
	model := "scripted"
	instruction, mimeType := "Be brief.", "image/png"
	image := &parley.ImageContent{Data: []byte("\x89PNG"), MimeType: &mimeType}
	question := &parley.Message{Role: "user", Parts: []*parley.ContentPart{
		{Content: &parley.ContentPart_Text{Text: "Hello"}},
		{Content: &parley.ContentPart_Image{Image: image}},
	}}
	request := &parley.CreateChatCompletionRequest{
		Model:         &model,
		Messages:      []*parley.Message{{Role: "system", Text: &instruction}, question},
		StopSequences: []string{"END"},
	}
	chat := parley.NewChatCompletionsClient(connection)
	answer, err := chat.CreateChatCompletion(ctx, request)
	check(err)
	stream, err := chat.StreamChatCompletion(ctx, request)
	check(err)
	text := ""
	for {
		chunk, err := stream.Recv()
		if err != nil {
			break
		}
		for _, choice := range chunk.Choices {
			text += choice.Delta.GetContent()
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"whole":    answer.Choices[0].Message.GetText(),
		"streamed": text,
		"total":    answer.Usage.GetTotalTokens(),
	}))
}
