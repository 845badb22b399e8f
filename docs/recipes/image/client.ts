// Asks about an image.
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: process.env.KEY });
const url = `data:image/png;base64,${readFileSync("photo.png", "base64")}`;
const answer = await client.chat.completions.create({
  model: "support",
  messages: [
    {
      role: "user",
      content: [
        { type: "text", text: "What is this?" },
        { type: "image_url", image_url: { url } },
      ],
    },
  ],
});
console.log(answer.choices[0]?.message.content);
