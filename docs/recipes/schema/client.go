// Gets an answer as JSON with a schema.
package main

import (
	"context"
	"encoding/json"
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

	model, question, strict := "smollm2", "What is the capital of France?", true
	schema := `{
		"type": "object",
		"properties": {"capital": {"type": "string", "maxLength": 20}},
		"required": ["capital"],
		"additionalProperties": false
	}`
	answer, err := chat.CreateChatCompletion(ctx, &parley.CreateChatCompletionRequest{
		Model:    &model,
		Messages: []*parley.Message{{Role: "user", Text: &question}},
		ResponseFormat: &parley.ResponseFormat{
			JsonSchema: &parley.JsonSchema{Name: "capital", SchemaJson: &schema, Strict: &strict},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	var parsed struct{ Capital string }
	if err := json.Unmarshal([]byte(answer.Choices[0].Message.GetText()), &parsed); err != nil {
		log.Fatal(err)
	}
	fmt.Println(parsed.Capital)
}
