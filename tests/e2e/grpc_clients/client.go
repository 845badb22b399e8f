// Calls Parley from Go with the code that protoc-gen-go and protoc-gen-go-grpc generate from protos/. Prints JSON.
package main

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
	parley "example.com/parley/parley/v1"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	connection, err := grpc.Dial(os.Getenv("PARLEY_GRPC"), grpc.WithInsecure())
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("KEY"))
	model := "scripted"
	question := &parley.Message{Role: "user", Content: structpb.NewStringValue("Hello")}
	request := &parley.CreateChatCompletionRequest{Model: &model, Messages: []*parley.Message{question}}
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
		"whole":    answer.Choices[0].Message.Content.GetStringValue(),
		"streamed": text,
		"total":    answer.Usage.GetTotalTokens(),
	}))
}
