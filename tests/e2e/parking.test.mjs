// parking
