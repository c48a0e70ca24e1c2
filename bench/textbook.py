"""The loop that most DCGAN scripts copy, written once more so that it can be raced: PIL transforms on every image every
epoch, a DataLoader with two workers, fp32, a sigmoid before BCELoss, three `.item()` and a print each step."""
from typing import Iterator

import torch
from dcgan.recipes import Recipe
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Pictures(Dataset):
    "A bank as a data set of PIL images, transformed at each visit."
    def __init__(self,
                 images):  # uint8 (n, c, h, w)
        c, size = images.shape[1], images.shape[-1]
        self.images = [image[0].numpy() if c == 1 else image.permute(1, 2, 0).numpy() for image in images]
        self.transform = transforms.Compose([transforms.ToPILImage(), transforms.Resize(size), transforms.CenterCrop(size),
                                             transforms.ToTensor(), transforms.Normalize((0.5,) * c, (0.5,) * c)])

    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.transform(self.images[i])


def textbook(recipe: Recipe,  # networks, batch size, rates, labels
             images,          # uint8 (n, c, h, w)
             epochs: int,     # times through the images
             file=None,       # where the line of each step is printed
            ) -> Iterator[int]:
    "Train as the copied scripts do; after each step, the number of real images that it saw."
    netG, netD = recipe.networks()
    netD = nn.Sequential(netD, nn.Sigmoid())
    criterion = nn.BCELoss()
    optimizerD = torch.optim.Adam(netD.parameters(), lr=recipe.lr_d, betas=(recipe.beta1, recipe.beta2))
    optimizerG = torch.optim.Adam(netG.parameters(), lr=recipe.lr_g, betas=(recipe.beta1, recipe.beta2))
    loader = DataLoader(Pictures(images), batch_size=recipe.batch_size, shuffle=True, num_workers=2)
    for epoch in range(epochs):
        for i, data in enumerate(loader):
            netD.zero_grad()
            label = torch.full((len(data),), recipe.real_label)
            output = netD(data)
            errD_real = criterion(output, label)
            errD_real.backward()
            D_x = output.mean().item()
            fake = netG(torch.randn(len(data), recipe.z_dim))
            label.fill_(recipe.fake_label)
            output = netD(fake.detach())
            errD_fake = criterion(output, label)
            errD_fake.backward()
            D_G_z1 = output.mean().item()
            optimizerD.step()
            netG.zero_grad()
            label.fill_(1.)
            output = netD(fake)
            errG = criterion(output, label)
            errG.backward()
            D_G_z2 = output.mean().item()
            optimizerG.step()
            print(f"[{epoch}/{epochs}][{i}/{len(loader)}] Loss_D: {(errD_real + errD_fake).item():.4f} Loss_G: {errG.item():.4f} "
                  f"D(x): {D_x:.4f} D(G(z)): {D_G_z1:.4f} / {D_G_z2:.4f}", file=file)
            yield len(data)
