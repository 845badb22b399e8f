// Lets the model call a function, until it answers.
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

	model, question := "support", "How warm is Paris?"
	description := "Returns the weather of a city."
	parameters := `{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}`
	request := &parley.CreateChatCompletionRequest{
		Model:    &model,
		Messages: []*parley.Message{{Role: "user", Text: &question}},
		Tools: []*parley.Tool{{Function: &parley.FunctionDefinition{
			Name: "get_weather", Description: &description, ParametersJson: &parameters,
		}}},
	}
	for round := 0; round < 10; round++ {
		answer, err := chat.CreateChatCompletion(ctx, request)
		if err != nil {
			log.Fatal(err)
		}
		message := answer.Choices[0].Message
		if len(message.ToolCalls) == 0 {
			fmt.Println(message.GetText())
			return
		}
		request.Messages = append(request.Messages, message)
		for _, call := range message.ToolCalls {
			var arguments struct{ City string }
			if err := json.Unmarshal([]byte(call.Function.GetArguments()), &arguments); err != nil {
				log.Fatal(err)
			}
			result := fmt.Sprintf(`{"city": %q, "celsius": 21}`, arguments.City)
			id := call.Id
			request.Messages = append(request.Messages, &parley.Message{Role: "tool", ToolCallId: &id, Text: &result})
		}
	}
}
